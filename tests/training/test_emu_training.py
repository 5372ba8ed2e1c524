"""Training Emu: what is frozen, recomputed activations, accumulated batches, samples left out."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from emu_stages import EMU, EMU2, SMALL, clip, conversations, encoded, picture, table
from omegaconf import OmegaConf
from safetensors.torch import load_file

from multimodal_zoo import zoo
from multimodal_zoo.cli import main
from multimodal_zoo.config import compose
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.visual_batches import visual_rows_batch
from multimodal_zoo.data.visual_sequences import LearntElements
from multimodal_zoo.objectives.next_element import NextElement
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch
from multimodal_zoo.training import assemble


def made(name: str, words: list[str]) -> tuple[Any, dict[str, Any]]:
    """A stage's module with a small random model, and its recipe."""
    given = [*SMALL, *words, "data=emu_conversations", "data.train.table=x", "data.train.folder=x", "run.dir=x"]
    recipe = OmegaConf.to_container(compose(f"emu/{name}", [*given, "initial_weights=null"]), resolve=True)
    assert isinstance(recipe, dict)
    model = zoo.build_model(recipe["model"], seed=0)
    return assemble.objective_module(recipe, model), recipe


def batch_of(model: Any, learn: LearntElements | None = None, texts: int = 1) -> VisualTokenBatch:
    """Rows with no picture, one and two."""
    draw = np.random.default_rng(0)
    documents = [Document([Text("a cat and a dog")], {"key": f"words {number}"}) for number in range(texts)]
    documents.append(Document([Image(picture(draw)), Text("red sun")], {"key": "one"}))
    documents.append(Document([Text("blue"), Image(picture(draw)), Text("tree"), Image(picture(draw))], {"key": "two"}))
    processor = model.processor
    samples = [processor.sample(one, Random(0), False, learn or LearntElements()) for one in documents]
    return visual_rows_batch([[sample] for sample in samples], processor.ids.pad)


@pytest.mark.parametrize(("name", "words"), [("emu2_stage2", EMU2), ("emu2_gen", EMU2), ("emu2_chat", EMU2)])
def test_a_frozen_encoder_stays_out_of_it(name: str, words: list[str]) -> None:
    module, _ = made(name, words)
    module.train()
    encoder = module.model.image_encoder
    assert not any(part.training for part in encoder.modules())
    assert module.model.decoder.training
    found = module.objective(module.model, batch_of(module.model))
    found["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert all(p.grad is not None for p in module.model.input_projection.parameters())
    held = {id(p) for group in module.rules.groups(module.trainable_names(), 1.0, 0.0) for p in group["params"]}
    assert not held & {id(p) for p in encoder.parameters()}
    assert id(module.model.decoder.token_embedding.weight) in held


@pytest.mark.parametrize("words", [EMU, EMU2], ids=["emu", "emu2"])
def test_recomputed_activations_give_the_same_gradients(words: list[str]) -> None:
    gradients = []
    for policy in ("none", "block"):
        chosen = [f"model.decoder.blocks.checkpoint={policy}", f"model.image_encoder.blocks.checkpoint={policy}"]
        module, _ = made("pretrain" if words is EMU else "emu2_stage1", [*words, *chosen])
        module.train()
        module.objective(module.model, batch_of(module.model))["loss"].backward()
        gradients.append({name: p.grad for name, p in module.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert any(name.startswith("image_encoder.") and bool(one.any()) for name, one in gradients[0].items())


def test_batches_without_words_weigh_by_their_pictures(tmp_path: Path) -> None:
    """Two accumulated batches of Emu2-Gen train as one large one, though no word is learnt."""
    records = conversations(tmp_path, 8, text_share=0.0)
    common = [*EMU2, *table(tmp_path, records), "data=emu_conversations", "data.learn.words=false"]
    common += ["data.learn.pictures=said", "initial_weights=null", "optim.eps=1.0e-3"]
    runs = []
    for name, words in (("one", ["data.batch_size=4"]), ("two", ["data.batch_size=2"])):
        changed = [*SMALL, *common, *words, f"run.dir={tmp_path / name}"]
        changed += [f"trainer.accumulate_grad_batches={1 if name == 'one' else 2}"]
        assert main(["train", "emu/emu2_gen", *changed]) == 0
        runs.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    start = zoo.build_model(OmegaConf.to_container(OmegaConf.load(tmp_path / "one" / "config.yaml").model), seed=0)
    first, second = runs
    assert not torch.equal(first["regression_head.weight"], start.state_dict()["regression_head.weight"])
    for name, tensor in first.items():
        torch.testing.assert_close(
            second[name], tensor, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name} {text}"
        )


def test_the_weight_of_the_regression_is_a_factor() -> None:
    module, _ = made("pretrain", EMU)
    batch = batch_of(module.model)
    found = [NextElement(NextToken(), weight)(module.model, batch) for weight in (0.0, 1.0, 3.0)]
    words, pictures = found[1]["language_loss"], found[1]["regression_loss"]
    assert pictures > 0
    for weight, one in zip((0.0, 1.0, 3.0), found, strict=True):
        torch.testing.assert_close(one["loss"].detach(), words + weight * pictures)


def test_words_alone_train_every_part_of_the_graph() -> None:
    """A process without pictures has gradients for the same parameters, zero where pictures would have been read."""
    module, _ = made("pretrain", EMU)
    module.train()
    model = module.model
    samples = [model.processor.sample(Document([Text("a cat")], {"key": "words"}), Random(0))]
    module.objective(model, visual_rows_batch([samples], model.processor.ids.pad))["loss"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    pictures = [one for name, one in gradients.items() if name.startswith(("image_encoder.", "connector."))]
    assert not any(bool(one.any()) for one in pictures)


def test_several_pictures_in_a_turn_and_clips(tmp_path: Path) -> None:
    """Records with a list of pictures, and with a clip; what cannot be used is counted and named."""
    draw = np.random.default_rng(2)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(draw))
    (tmp_path / "clip.mp4").write_bytes(clip(draw))
    asked, answer = "<image> and <image>: what changed?", {"from": "gpt", "value": "the sun"}
    records: list[dict[str, Any]] = [
        {"id": "two", "image": ["0.png", "1.png"], "conversations": [{"from": "human", "value": asked}, answer]},
        {"id": "clip", "video": "clip.mp4", "conversations": [{"from": "human", "value": "<video> what?"}, answer]},
        {"id": "words", "conversations": [{"from": "human", "value": "what?"}, answer]},
        {"id": "lost", "image": "gone.png", "conversations": [{"from": "human", "value": "<image>"}, answer]},
        {"id": "unasked", "conversations": []},
        {"id": "more", "image": ["0.png"] * 3, "conversations": [{"from": "human", "value": asked}, answer]},
        {"id": "silent", "conversations": [{"from": "human", "value": "what?"}]},
    ]
    words = [*SMALL, *EMU2, *table(tmp_path, records), "data=emu_conversations", "initial_weights=null"]
    words += ["model.processor.template=emu2_chat", "data.batch_size=3", "trainer.max_steps=4"]
    assert main(["train", "emu/emu2_chat", *words, f"run.dir={tmp_path / 'run'}"]) == 0
    told = json.loads((tmp_path / "run" / "report.json").read_text())["left_out"]["data.train"]
    named = " ".join(example for _, examples in told.values() for example in examples)
    for name in ("gone.png", "unasked", "more", "silent"):
        assert name in named, told
    assert not any(name in named for name in ("(two)", "(clip)", "(words)"))
    assert "Samples left out" in (tmp_path / "run" / "report.html").read_text()
