"""Pictures through a visual tokenizer and back: what is left of them as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image as PilImage
from torch import Tensor, nn

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.pictures import PathLike
from multimodal_zoo.data.visual_codes import encode_pictures
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.inference.speaking import evaluating


@dataclass(frozen=True, eq=False)
class Autoencoded:
    """A picture, and what its tokens tell of it.

    Attributes:
        seen: the picture as the tokenizer saw it, resized.
        image: what the tokens decode to.
        codes: long (rows, columns).
    """

    seen: PilImage
    image: PilImage
    codes: Tensor


def visual_tokenizer(model: nn.Module, purpose: str) -> tuple[Any, Any]:
    """The visual tokenizer of a model, or the model that is one, and the processor.

    Raises:
        TypeError: a model that makes no codes, or has no processor.
        ValueError: an Emu3 without its visual tokenizer.
    """
    vision: Any = model.tokenizer() if isinstance(model, Emu3) else model
    if not callable(getattr(vision, "encode", None)) or not callable(getattr(vision, "decode", None)):
        raise TypeError(
            f"{purpose} needs a visual tokenizer (emu3_vision_tokenizer) or a model that has one (emu3_gen), got "
            f"{type(model).__name__}"
        )
    processor: Any = getattr(model, "processor", None)
    if not hasattr(processor, "pictures"):
        raise TypeError(f"{purpose} needs model.processor for pictures (emu3_picture_processor), got {processor!r}")
    return vision, processor


def reconstruct(
    model: nn.Module, pictures: Sequence[Picture | PathLike | bytes], batch_size: int = 8
) -> list[Autoencoded]:
    """Encode and decode pictures of any sizes.

        model = zoo.create("emu3_vision_tiny")
        (result,) = reconstruct(model, ["photo.jpg"])
        result.image.save("as_tokens.png")

    Args:
        model: a visual tokenizer, or an Emu3 with one.
        pictures: PIL images, uint8 arrays, paths or encoded bytes.
        batch_size: pictures of one size encoded at a time.

    Raises:
        TypeError, ValueError: a model without a visual tokenizer.
        UnfitPictureError, UnusableError: a picture whose shape is out of bounds, or that cannot be read.
    """
    vision, processor = visual_tokenizer(model, "reconstruct")
    pixels = processor.images(pictures)
    with evaluating(vision) as device:
        codes = encode_pictures(vision, pixels, batch_size=batch_size, device=device)
        shown = [processor.pictures(vision.decode(one[None].to(device)).cpu())[0] for one in codes]
    seen = [processor.pictures(one[None])[0] for one in pixels]
    return [Autoencoded(*parts) for parts in zip(seen, shown, codes, strict=True)]
