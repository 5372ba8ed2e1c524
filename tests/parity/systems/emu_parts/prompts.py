"""Emu's cases of prompts: strings and documents as ids, with the tokenizer that lies beside the case.

LLaMA's own file travels with no package. Without it (`MMZOO_LLAMA_TOKENIZER` names one) its ids are checked for what
does not depend on the words: which special tokens stand where, and that as many stretches of words lie between them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.emu_parts.placeholders import FRAME, PICTURE, placed
from torch import Tensor

from multimodal_zoo.data.documents import Document, Picture, Segment, Text
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.emu_templates import EMU2_LONG, EMU2_SHORT, EMU_IMAGE, EMU_VIDEO
from multimodal_zoo.data.processor import pad_ids
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.tokenizers.added_tokens import AddedTokens
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {
    "prompts": None,
    "strings": None,
    "long_string": None,
    "files": None,
}
CALL_FIELDS: set[str] = set()
KNOWN = ("instruct", "n_image_tokens", "special_ids", "llama_special_ids")
VARIABLE = "MMZOO_LLAMA_TOKENIZER"
#: One frame of a clip behind the other.
ROW = rf"(?:{re.escape(FRAME)})+"
#: Number of places in pictures.
PLACES = 257
BLANK: Picture = np.zeros((4, 4, 3), np.uint8)


def tokenizer_of(special: dict[str, int], file: str) -> AddedTokens:
    """LLaMA's kind of tokenizer with the special tokens of a case, whose ids must follow on those of the file."""
    own = LlamaTokenizer(file)
    words = {number: word for word, number in special.items()}
    first = special.get("<patch_index_0000>", special.get("<REC>", 0) + 1)
    last = max(words)
    if last == special.get("<REC>"):  # a case may list none of the places in pictures behind it
        last += PLACES
    added = [words.get(number) or f"<patch_index_{number - first:04d}>" for number in range(own.vocab_size, 1 + last)]
    found = AddedTokens(own, added, "[PAD]")
    assert {word: found.special_id(word) for word in special} == special
    return found


def _ways(case: Case) -> dict[str, AddedTokens]:
    config = take_known(case.config, KNOWN, "config")
    found = {"ids": tokenizer_of(config["special_ids"], str(case.folder / "tokenizer.model"))}
    if file := os.environ.get(VARIABLE):
        found["llama_ids"] = tokenizer_of(config["llama_special_ids"], file)
    return found


def tokenizers(case: Case) -> dict[str, AddedTokens]:
    """The tokenizers that are here, by the name of their results; made once."""
    return case.once("tokenizers", lambda: _ways(case))


def _spliced(ours: Sequence[int], expected: Tensor, case: Case) -> Tensor:
    """Our special tokens at LLaMA's numbers, with the expected ids of words in between."""
    small, large = case.config["special_ids"], case.config["llama_special_ids"]
    numbers = {small[word]: large[word] for word in small}
    words = (list(run) for inside, run in groupby(expected.tolist(), lambda one: one not in large.values()) if inside)
    found: list[int] = []
    for inside, run in groupby(ours, lambda one: one not in numbers):
        found += next(words, []) if inside else [numbers[one] for one in run]
    return torch.tensor(found + [one for rest in words for one in rest])


def _results(rows: dict[str, Callable[[AddedTokens], Sequence[list[int]]]], case: Case) -> dict[str, Any]:
    """Each row by every way of computing it, with the small tokenizer and with LLaMA's or what can be known of it."""
    made: dict[str, Any] = {}
    here = tokenizers(case)
    for name, encode in rows.items():
        ours = encode(here["ids"])
        made[f"ids.{name}"] = tuple(torch.tensor(row) for row in ours)
        expected = case.tensors[f"llama_ids.{name}"]
        real = encode(here["llama_ids"]) if "llama_ids" in here else None
        made[f"llama_ids.{name}"] = (
            _spliced(ours[0], expected, case) if real is None else tuple(torch.tensor(row) for row in real)
        )
    return made


def _row(tokenizer: AddedTokens, text: str) -> list[int]:
    return [int(tokenizer.bos_id or 0), *tokenizer.encode([text])[0]]


def _conversation(prompt: str) -> tuple[str, str, list[tuple[str, str]]]:
    """The system message, what stands behind the last colon, and what each speaker says."""
    opening = "<grounding>" if prompt.endswith("<grounding>") else ""
    system, *parts = re.split(r"(\[USER\]|\[ASSISTANT\])", prompt.removesuffix(opening))
    said: list[tuple[str, str]] = []
    for role, words in zip(parts[::2], parts[1::2], strict=True):
        if said and said[-1][0] == role:
            said[-1] = (role, said[-1][1] + role + words)
        else:
            said.append((role, words.removeprefix(":").removeprefix(" ")))
    return system.strip(), opening, said


def _clips_open(prompt: str, frames: bool) -> bool:
    """Whether every row of frames stands behind the token of a video, as a document's does; Emu has no such token."""
    return not frames or all(run.startswith("[VIDEO]") for run in re.findall(rf"(?:\[VIDEO\])?{ROW}", prompt))


def _is_conversation(prompt: str) -> bool:
    """Whether users and assistant speak in turn, a colon behind each."""
    roles = re.findall(r"\[(USER|ASSISTANT)\](:?)", prompt)
    turns = [role for role, _ in roles]
    wanted = ["USER", "ASSISTANT"] * (len(turns) // 2)
    return bool(turns) and turns == wanted and all(colon for _, colon in roles)


def _documents(prompt: str, frames: bool) -> dict[str, list[Segment]]:
    """The prompt as documents, by the templates that write them."""

    def shown(text: str) -> list[Segment]:
        """Its segments, with any pictures."""
        return placed(text, [BLANK] * text.count(PICTURE), [BLANK] * text.count(FRAME))

    if re.search(r"<image>|\[gIMG\]|\[PAD\]", prompt) or not _clips_open(prompt, frames):
        return {}
    found = {"plain": shown(prompt)}
    if not _is_conversation(prompt):
        return found
    system, opening, said = _conversation(prompt)
    segments: list[Segment] = []
    for role, words in said:
        name = {"[USER]": "user", "[ASSISTANT]": "assistant"}[role]
        words = words.rstrip().removesuffix("</s>") if name == "assistant" else words.rstrip()
        if system == EMU_VIDEO:  # its frames are pictures
            words = words.replace(PICTURE, FRAME)
        parts = [Text(one.text, name) if isinstance(one, Text) else one for one in shown(words)]
        segments += parts
    template = ("emu2_grounded" if opening else "emu2_chat") if frames else "emu_instruct"
    shows = {EMU_VIDEO: EMU_VIDEO}.get(system, EMU_IMAGE) if PICTURE in prompt else ""
    if system != {"emu2_grounded": EMU2_SHORT, "emu2_chat": EMU2_LONG}.get(template, shows):
        segments = [Text(system, "system"), *segments]
    return {**found, template: segments}


def prompts(request: Request) -> Outcome:
    """Prompts as strings, and as documents through the templates."""
    case = request.case
    size = int(re.findall(r"\[<VID_PLH>\] for \[IMG\] \+ (\d+) \[gIMG\]", request.call.note)[0])
    count = case.config["n_image_tokens"]
    pixels = ImageTransform(4, [0.5] * 3, [0.5] * 3, "squash")

    def ways(prompt: str) -> Callable[[AddedTokens], list[list[int]]]:
        """All ways of encoding a prompt."""
        text = prompt.replace(PICTURE, "[IMG]" + "<image>" * count + "[/IMG]")
        text = text.replace(FRAME, "[IMG]" + "[gIMG]" * size + "[/IMG]")

        def encode(tokenizer: AddedTokens) -> list[list[int]]:
            """As a string, and as documents."""
            frames = tokenizer.special_id("[gIMG]") is not None
            ours = EmuProcessor(pixels, tokenizer, count, size if frames else None)
            told = _documents(prompt, frames).items()
            made = [ours.written_as(name).prompt(Document(segments)).ids.tolist() for name, segments in told]
            return [_row(tokenizer, text), *made]

        return encode

    rows = [take_known(row, ("name", "what", "prompt"), "prompt") for row in case.fields["prompts"]]
    return _results({row["name"]: ways(row["prompt"]) for row in rows}, case)


def strings(request: Request) -> Outcome:
    """Texts of all kinds; several as a batch; one beyond the context, which is not cut."""
    case = request.case
    texts, here = case.fields["strings"], tokenizers(case)
    rows = {
        f"string_{number:02d}": (lambda tokenizer, text=text: [_row(tokenizer, text)])
        for number, text in enumerate(texts)
    }
    made = _results(rows, case)  # type: ignore[arg-type]
    long = " ".join(f"word{number}" for number in range(900))
    assert case.fields["long_string"] == "' '.join('word%d' % i for i in range(900))"
    for name in ("ids", "llama_ids"):
        pad = case.config["special_ids" if name == "ids" else "llama_special_ids"]["[PAD]"]
        first = [made[f"{name}.string_{number:02d}"] for number in range(6)]
        batch = [(one[0] if isinstance(one, tuple) else one).tolist() for one in first]
        made[f"{name}.batch"] = pad_ids(batch, pad)
        made[f"{name}.batch_mask"] = (made[f"{name}.batch"] != pad).long()
        known = _row(here[name], long) if name in here else None
        tail, length = f"{name}.long_tail", f"{name}.long_length"  # of words alone: nothing to know without the file
        made[tail] = case.tensors[tail] if known is None else torch.tensor(known[-16:])
        made[length] = case.tensors[length] if known is None else torch.tensor(len(known))
    return made


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"tokenizer\(prompt with \[<IMG_PLH>\] and \[<VID_PLH>\] expanded\)")(prompts)
    system.call(
        r"tokenizer\(string\); tokenizer\(strings\[:6\], padding to the longest, right\); tokenizer\(long_string\)"
    )(strings)
