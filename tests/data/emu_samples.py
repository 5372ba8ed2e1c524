"""Small documents, tokenizers and processors of Emu's kind."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.data.documents import Document, Image, Segment, Text, Video
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.tokenizers.added_tokens import AddedTokens
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer

#: The small sentencepiece file of the golden cases: 420 pieces.
FILE = Path(__file__).parents[1] / "goldens" / "emu" / "prompts_emu1" / "tokenizer.model"
EMU = ("[PAD]", "[IMG]", "[/IMG]", "<image>", "[USER]", "[ASSISTANT]")
EMU2 = (
    "[PAD]", "[IMG]", "[/IMG]", "<image>", "[gIMG]", "[/gIMG]", "[EOC]", "[VIDEO]", "<grounding>", "<phrase>",
    "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>", "<REC>", "<patch_index_{0000..0256}>",
    "[USER]", "[ASSISTANT]",
)  # fmt: skip
#: Visual embeddings of a picture, and of a frame of Emu2.
TOKENS, FRAME_TOKENS = 3, 2


@cache
def tokenizer(added: tuple[str, ...] = EMU, strip: bool = True) -> AddedTokens:
    """LLaMA's kind with further tokens."""
    return AddedTokens(LlamaTokenizer(str(FILE)), added, "[PAD]", strip)


def processor(template: str = "plain", version: int = 1, **changes: Any) -> EmuProcessor:
    """A processor of either generation, for pictures of 4 x 4 pixels."""
    images = ImageTransform(4, (0.5,) * 3, (0.5,) * 3, "squash")
    given = {"image_tokens": TOKENS, "closing": version == 1, "template": template}
    given |= {"frame_tokens": FRAME_TOKENS} if version == 2 else {}
    return EmuProcessor(images, tokenizer(EMU if version == 1 else EMU2), **(given | changes))  # type: ignore[arg-type]


def picture(seed: int = 0) -> np.ndarray:
    """Random colours."""
    return np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def clip(frames: int) -> Video:
    """Random pictures in order of time."""
    return Video([picture(100 + number) for number in range(frames)], 8.0)


def document(*segments: str | int | Segment | tuple[str, str], key: str = "sample") -> Document:
    """Texts (a pair says who speaks), pictures by number, and segments as they are."""
    found: list[Segment] = []
    for segment in segments:
        if isinstance(segment, str):
            found.append(Text(segment))
        elif isinstance(segment, int):
            found.append(Image(picture(segment)))
        elif isinstance(segment, tuple):
            found.append(Text(segment[1], segment[0]))
        else:
            found.append(segment)
    return Document(found, {"key": key})
