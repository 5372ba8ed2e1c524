"""DeCLIP (arXiv 2110.05208): what each call of its cases means."""

from __future__ import annotations

from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from systems.declip_parts import evaluation, losses, neighbour_queue, optimisation, pictures, ranks, texts, towers

from multimodal_zoo.data.processor import pad_ids
from multimodal_zoo.tokenizers.clip_bpe import ClipTokenizer

WORDS = ("<|mask|>", "<|startoftext|>", "<|endoftext|>")


def tokenizer(case: Case) -> ClipTokenizer:
    """Our tokenizer of a case's configuration, whose special ids must be the published ones."""
    config = take_known(case.config, {"vocab_size", "mask", "start", "end", "context_length", "merges"}, "config")
    made = ClipTokenizer(config["context_length"], config["vocab_size"], special=WORDS, mask=WORDS[0])
    ids = {"start": made.start_id, "end": made.end_id, "mask": made.mask_id, "vocab_size": made.vocab_size}
    assert ids == {key: config[key] for key in ids}, f"special ids are {ids}"
    return made


def tokenize(request: Request) -> Outcome:
    """Padded ids, and lengths before padding."""
    made = tokenizer(request.case)
    rows = made.encode(request.case.fields["texts"])
    ids = pad_ids([*rows, [0] * made.context_length], made.pad_id)[:-1]
    return {"ids": ids, "lengths": pad_ids([[len(row)] for row in rows], 0)[:, 0]}


def decoded(case: Case) -> Outcome:
    """The field `decoded`: row number -> text between start and end."""
    made = tokenizer(case)
    rows = made.encode(case.fields["texts"])
    return {f"decoded {n}": Pair(made.decode(rows[int(n)]), text.strip()) for n, text in case.fields["decoded"].items()}


def expected(case: Case) -> Outcome:
    """The field `expected`: of prompts, or of parameter groups."""
    return evaluation.prompts(case) if "class_names" in case.fields else optimisation.check_groups(case)


SYSTEM = System(
    "declip",
    fields={"texts": None, "decoded": decoded},
    call_fields=frozenset({"fixed", "logit_scale", "logit_scale_dense"}),
)
TEXT_INPUTS = ("properties", "tolerance", "sentences", "stop_words_used_here", "examples_for_second_sentence")
SYSTEM.fields = {**SYSTEM.fields, **dict.fromkeys((*TEXT_INPUTS, "synonyms_wordnet_3_0")), "measured": texts.measured}
SYSTEM.fields = {**SYSTEM.fields, "class_names": None, "expected": expected}
SYSTEM.call(r"tokenize\(texts, context_length, return_length=True\)")(tokenize)

SYSTEM.call(r"CosineLRScheduler\.step\(iteration\)")(optimisation.learning_rate)

SYSTEM.call(r"declip_solver evaluate: text_features .*")(evaluation.by_embeddings)
SYSTEM.call(r"filip_solver evaluate: text_tokens .*")(evaluation.by_tokens)

SYSTEM.call(r"CLIP\.forward in training mode, one process; ClipInfoCELoss; backward")(losses.loss_call("clip"))
SYSTEM.call(r"SLIP\.forward\(return_dict=True\) in training mode, one process; .*")(losses.loss_call("slip"))
SYSTEM.call(r"FILIP\.forward\(return_dict=True\) in training mode, one process; .*")(losses.loss_call("filip"))
SYSTEM.call(r"DECLIP\.forward\(return_dict=True\) in training mode, one process; .*")(losses.loss_call("declip"))
SYSTEM.call(r"DEFILIP\.forward\(return_dict=True\) in training mode, one process; .*")(losses.loss_call("defilip"))

SYSTEM.call(r"visual\(x(?P<first>\[:1\])?(?:, return_\w+=True)*\)(?:, evaluation mode)?")(towers.encode_image)
SYSTEM.call(r"encode_text\(ids(?:, return_\w+=True)*\)(?:, evaluation mode)?(?:; text_label_predictor\(dense\))?")(
    towers.encode_text
)
SYSTEM.call(r"ONECROP\(PIL image\)")(pictures.one_crop)

SYSTEM.call(r"nn\(x, update=(?P<update>True|False)\)")(neighbour_queue.look_up_and_update)
SYSTEM.call(r"CLIP\.forward with encoders that return the given features; .*")(ranks.gathered)
SYSTEM.call(r"FILIP\.get_weighted_dense_logits on the given token features; .*")(ranks.gathered)
SYSTEM.call(r"all_gather of both views; NT_Xent_gather; .*")(ranks.gathered)
