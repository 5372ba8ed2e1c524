"""EVA-CLIP and EVA-CLIP-18B (arXiv 2303.15389, 2402.04252): what each call of their cases means."""

from __future__ import annotations

from harness.cases import Call, Case
from harness.run import System
from systems.eva import evaluation, masked, objective, optimisation, towers
from systems.eva import pictures_and_texts as data


def zero_shot(case: Case, call: Call) -> bool:
    """Whether a call is about class names, not about pairs."""
    return "classnames" in case.fields


def pairs(case: Case, call: Call) -> bool:
    """Whether a call is about images and texts."""
    return "classnames" not in case.fields


SYSTEM = System(
    "eva_clip",
    fields={
        "texts": None,
        "decoded": data.decoded,
        "modes": None,
        "classnames": None,
        "templates": None,
        "parameter_groups": optimisation.check_groups,
    },
)

SYSTEM.call(r"encode_image")(towers.encode_image)
SYSTEM.call(r"encode_text")(towers.encode_text)
SYSTEM.call(r"visual\.forward_features")(towers.image_pooled)
SYSTEM.call(r"visual\.forward\(return_all_features=True\)")(towers.image_stream)
SYSTEM.call(r"text\(ids, return_all_features=True\)")(towers.text_tokens)
SYSTEM.call(r"intermediate activations")(towers.activations)
SYSTEM.call(r"rotary table")(towers.rotary_table)
SYSTEM.call(r"state after loading")(towers.loaded_state)
SYSTEM.call(r"vision_model")(towers.vision_model)
SYSTEM.call(r"visual\(image\) in training mode with the given kept indices")(towers.train_with_kept_patches)
SYSTEM.call(r"visual\(image\) in eval mode")(towers.evaluate_all_patches)
SYSTEM.call(r"loss=\(features_train\*loss_weights\)\.sum\(\); backward")(towers.gradients_with_kept_patches)

SYSTEM.call(r"forward")(objective.forward)
SYSTEM.call(r"scale")(objective.scale)
SYSTEM.call(r"logits", when=pairs)(objective.logits)
SYSTEM.call(r"ClipLoss on one process")(objective.loss)
SYSTEM.call(r"gradients of that loss")(objective.gradients)
SYSTEM.call(r"ClipLoss\(.*\)")(objective.gathered)
SYSTEM.call(r"ClipLoss on one process with the whole batch")(objective.whole_batch)

SYSTEM.call(r"zero_shot_classifier")(evaluation.classifier)
SYSTEM.call(r"logits", when=zero_shot)(evaluation.logits)
SYSTEM.call(r"accuracy", when=zero_shot)(evaluation.accuracy)
SYSTEM.call(r"get_metrics")(evaluation.one_to_one)
SYSTEM.call(r"recall@k")(evaluation.recalls)

SYSTEM.call(r"image_transform\(.*\)")(data.image_transform)
SYSTEM.call(r"squash transform, (?P<size>\d+)")(data.squash_transform)
SYSTEM.call(r"tokenize\(.*\)")(data.tokenize)

SYSTEM.call(r"step")(optimisation.lamb_steps)
SYSTEM.call(r"learning rate at each step")(optimisation.learning_rates)

SYSTEM.call(r"teacher\(image\)")(masked.teacher_tokens)
SYSTEM.call(r"student\(image, mask\)")(masked.prediction)
SYSTEM.call(r"loss and gradients")(masked.loss_and_gradients)
