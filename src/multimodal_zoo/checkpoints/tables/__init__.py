"""Published namings, one module per system, and how to tell from its names which one a file uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from multimodal_zoo.catalogue import require
from multimodal_zoo.checkpoints.naming import Naming, Translator
from multimodal_zoo.checkpoints.tables import (
    causal_decoder,
    clip,
    declip,
    diffusion,
    emu,
    emu3,
    emu3_vision,
    eva_clip,
    eva_mim,
    eve,
    fast_bev,
    gguf,
)

NAMINGS: dict[str, Naming] = {
    naming.name: naming
    for naming in (
        clip.OPENAI,
        clip.OPEN_CLIP_CUSTOM,
        clip.HF,
        *eva_clip.ALL,
        eva_mim.STUDENT,
        *declip.ALL,
        *emu3.ALL,  # before its parts: a published decoder is named as one of LLaMA's family is
        *eve.ALL,
        *emu.ALL,
        *diffusion.ALL,
        fast_bev.FAST_BEV,
        *causal_decoder.ALL,
        gguf.GGUF,
        emu3_vision.EMU3_VISION,
        emu3_vision.TRANSFORMERS_VISION,
    )
}
#: Namings of files with one part only, which say nothing of a whole model.
PART_NAMINGS: dict[str, tuple[Naming, ...]] = {
    "image": (
        eva_clip.TOWER,
        eva_mim.CLIP_IMAGE,
        eva_mim.OWN_IMAGE,
        fast_bev.DETECTOR_BACKBONE,
        fast_bev.RESNET,
    ),
    "decoder": (causal_decoder.LLAMA_TIED.under("", "decoder."), gguf.GGUF.under("", "decoder.")),
    "vision_tokenizer": (emu3_vision.TRANSFORMERS_VISION.under("", "vision_tokenizer."),),
}


def find_naming(name: str) -> Naming:
    """The published naming that a card calls `name`.

    Raises:
        KeyError: with the nearest known name.
    """
    return NAMINGS[require(name, list(NAMINGS), "naming", "card.weights.published.naming")]


def detect_naming(names: Iterable[str]) -> Naming | None:
    """The published naming whose table has a rule for most of a file's names, or None if no table knows half of them.

    Judging by most rather than all lets the exact accounting that follows say which names are wrong.
    """
    return next(iter(best_namings(names, NAMINGS.values())), None)


def rank_namings(names: Iterable[str], part: str) -> list[Naming]:
    """The namings, those of files with one part only among them, that know most of a file's names equally well.

    Args:
        names: a file's.
        part: a part of a model.
    """
    return best_namings(names, [*NAMINGS.values(), *PART_NAMINGS.get(part, ())])


def best_namings(names: Iterable[str], namings: Iterable[Naming]) -> list[Naming]:
    """Those of some namings that know most of a file's names, all equally many; none if that is not half of them."""
    listed = Counter(re.sub(r"(?<![^.])[0-9]+(?=[.])", "0", name) for name in names)  # blocks are alike: look at one
    known: list[tuple[int, Naming]] = []
    for naming in namings:
        translator = Translator(naming)
        known.append((sum(count for name, count in listed.items() if translator.knows(name)), naming))
    most = max(count for count, _ in known)
    return [naming for count, naming in known if count == most] if 2 * most > listed.total() else []
