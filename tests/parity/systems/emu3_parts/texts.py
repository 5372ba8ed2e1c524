"""Emu3's cases: the text tokenizer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known

from multimodal_zoo.data.processor import pad_ids
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL
from multimodal_zoo.tokenizers.emu3_text import Emu3Tokenizer
from multimodal_zoo.tokenizers.vocabularies import check_vision_tokens, packaged_ranks, read_ranks

#: Keys of a tokenizer's configuration that other parts read.
ELSEWHERE = ("padding_side", "model_max_length")
#: Where the published vocabulary file is, if it is not in the package dashscope.
VARIABLE = "MMZOO_EMU3_VOCABULARY"
#: Words of the published code for special tokens, where they are not the token's own.
ROLES = {
    "pad": "<|endoftext|>", "bos": "<|extra_203|>", "eos": "<|extra_204|>", "eol": "<|extra_200|>",
    "eof": "<|extra_201|>", "img": "<|image token|>", "boi": "<|image start|>", "eoi": "<|image end|>",
}  # fmt: skip


def tokenizer(case: Case, config: Mapping[str, Any], codebook_size: int | None = None) -> Emu3Tokenizer:
    """Our tokenizer of a configuration in the published names; files lie beside the case."""
    known = {"vocabulary", "vision_tokens", "special_start_id", "vocab_size", "visual_tokens", *ELSEWHERE}
    known |= {"vocabulary_sha256", "vocabulary_note"}
    found = take_known(config, known, "tokenizer config")
    if "vocabulary_sha256" in found:
        path, codes = _published(found["vocabulary_sha256"]), found["visual_tokens"]
    else:
        path, codes = case.folder / found["vocabulary"], check_vision_tokens(case.folder / found["vision_tokens"])
    assert codebook_size in (None, codes)
    assert found.get("visual_tokens", codes) == codes
    ranks = {"type": "tiktoken_file", "path": str(path), "size": found["special_start_id"]}
    ours = build({"type": "emu3_tokenizer", "codebook_size": codes, "vocabulary": ranks})
    assert len(read_ranks(str(path))) == ours.ids.pad
    assert found.get("vocab_size", ours.vocab_size) == ours.vocab_size
    return ours


def _published(sha256: str) -> Path:
    place = os.environ.get(VARIABLE)
    try:
        path = packaged_ranks() if place is None else Path(place)
    except FileNotFoundError:
        pytest.skip(f"the published vocabulary is not here: set {VARIABLE} to emu3.tiktoken, or pip install dashscope")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256, f"{path} is not the vocabulary of the case"
    return path


def _ours(case: Case) -> Emu3Tokenizer:
    return case.once("tokenizer", lambda: tokenizer(case, case.config))


def _rows(case: Case) -> list[list[int]]:
    return _ours(case).encode(case.fields["strings"])


def encode(request: Request) -> Outcome:
    """Ids of each string."""
    rows = _rows(request.case)
    assert request.call.outputs == tuple(f"ids_{number}" for number in range(len(rows)))
    return {f"ids_{number}": torch.tensor(row, dtype=torch.long) for number, row in enumerate(rows)}


def padded(request: Request) -> Outcome:
    """Ids of some strings as one batch, with a mask."""
    case, match = request.case, request.match
    rows = _rows(case)[int(match["first"]) : int(match["end"])]
    ids, mask = request.call.outputs
    pad, lengths = _ours(case).pad_id, torch.tensor([len(row) for row in rows])
    if match["side"] == "left":  # rows from the right edge on
        batch = pad_ids([row[::-1] for row in rows], pad).flip(1)
        return {ids: batch, mask: (torch.arange(batch.shape[1]).flip(0) < lengths[:, None]).long()}
    batch = pad_ids(rows, pad)
    return {ids: batch, mask: (torch.arange(batch.shape[1]) < lengths[:, None]).long()}


def _decoded(case: Case) -> Outcome:
    return {"decoded": Pair([_ours(case).decode(row) for row in _rows(case)], case.fields["decoded"])}


def _without_special(case: Case) -> Outcome:
    found = [_ours(case).decode(row, skip_special=True) for row in _rows(case)]
    return {"decoded_without_special": Pair(found, case.fields["decoded_without_special"])}


def _partial(case: Case) -> Outcome:
    partial = case.fields["decoded_partial"]
    return {"decoded_partial": Pair(_ours(case).decode(partial["ids"]), partial["text"])}


def _special_ids(case: Case) -> Outcome:
    ours = _ours(case)
    ids = ours.ids
    found = {}
    for name in case.fields["special_ids"]:
        if name.startswith("visual_"):
            found[name] = {"visual_first": ids.visual_first, "visual_last": ids.visual.stop - 1}[name]
        else:
            found[name] = ours.encode([ROLES.get(name, f"<|{name}|>")])[0][0]
    named = {"pad": ids.pad, "bos": ids.bos, "eos": ids.eos, "eol": ids.end_of_line, "eof": ids.end_of_frame}
    named |= {"img": ids.image_token, "boi": ids.image_start, "eoi": ids.image_end}
    assert all(found[name] == number for name, number in named.items() if name in found)
    assert ours.encode(["".join(SPECIAL)])[0] == list(range(ids.pad, ids.visual_first))
    return {"special_ids": Pair(found, case.fields["special_ids"])}


#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {
    "strings": None,
    "decoded": _decoded,
    "decoded_without_special": _without_special,
    "decoded_partial": _partial,
    "special_ids": _special_ids,
}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"encode\(strings\[i\]\)")(encode)
    system.call(r"call\(strings\[(?P<first>\d+):(?P<end>\d+)\], padding longest, (?P<side>left|right)\)")(padded)
