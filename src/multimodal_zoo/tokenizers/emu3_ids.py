"""The joint vocabulary of text and visual tokens of Emu3 (arXiv 2409.18869, section 2.2): which id means what."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from multimodal_zoo.registry import TOKENIZERS

#: Special tokens between the text's own and the visual ones, in the published order.
EXTRA = tuple(f"<|extra_{number}|>" for number in range(205))
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *EXTRA, "<|image token|>", "<|image start|>", "<|image end|>")


@dataclass(frozen=True)
class Emu3Ids:
    """Ids of the tokens that are no text.

    Attributes:
        pad: fills a batch.
        bos: begins a sequence.
        eos: ends one.
        end_of_line: stands behind every row of visual tokens.
        end_of_frame: stands behind the last row of a picture.
        image_token: stands between the size of a picture and its first visual token.
        image_start: stands before the size of a picture.
        image_end: ends a picture.
        visual_first: the visual token of code 0; those of other codes follow.
        codebook_size: number of visual tokens.
    """

    pad: int
    bos: int
    eos: int
    end_of_line: int
    end_of_frame: int
    image_token: int
    image_start: int
    image_end: int
    visual_first: int
    codebook_size: int

    @property
    def visual(self) -> slice:
        """The range of visual tokens, as rows of the output layer."""
        return slice(self.visual_first, self.visual_first + self.codebook_size)

    def is_visual(self, ids: Tensor) -> Tensor:
        """Which of some ids are visual tokens: bool, of the same shape."""
        return (ids >= self.visual_first) & (ids < self.visual_first + self.codebook_size)


@TOKENIZERS.register_module(name="emu3_ids")
def numbered_ids(text_size: int, codebook_size: int) -> Emu3Ids:
    """The published numbering: text, special tokens, then visual tokens.

    Args:
        text_size: number of text tokens, 151,643 in the published vocabulary.
        codebook_size: number of visual tokens, 32,768 in the published one.
    """
    place = {word: text_size + number for number, word in enumerate(SPECIAL)}
    return Emu3Ids(
        pad=place["<|endoftext|>"],
        bos=place["<|extra_203|>"],
        eos=place["<|extra_204|>"],
        end_of_line=place["<|extra_200|>"],
        end_of_frame=place["<|extra_201|>"],
        image_token=place["<|image token|>"],
        image_start=place["<|image start|>"],
        image_end=place["<|image end|>"],
        visual_first=text_size + len(SPECIAL),
        codebook_size=codebook_size,
    )
