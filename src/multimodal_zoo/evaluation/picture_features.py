"""Features of pictures for comparing them: the evaluated model's own, or another encoder's by its path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.encoders.image_tokens import image_tokens
from multimodal_zoo.evaluation.environment import fingerprint
from multimodal_zoo.evaluation.features import embed_images
from multimodal_zoo.evaluation.samples import text_embeddings
from multimodal_zoo.registry import EVALUATORS


class PictureFeatures(Protocol):
    """Something that makes vectors of pictures.

    Attributes:
        name: what it is, for reports and for the name of a cache.
    """

    name: str

    def vectors(self, model: nn.Module, pictures: Iterable[Any], device: torch.device) -> Tensor:
        """Normalised vectors of pictures, float32 (pictures, width) on the CPU.

        Args:
            model: the evaluated one.
            pictures: PIL images or uint8 arrays; consumed as a stream.
            device: where it computes.
        """
        ...

    def mark(self, device: torch.device) -> str:
        """What decides the vectors beside the evaluated model: a hash of the weights, or nothing."""
        ...


@EVALUATORS.register_module(name="own_features")
class OwnFeatures:
    """The evaluated model's image encoder: the mean of its tokens, or its embeddings where it is a dual encoder.

    Args:
        batch_size: pictures per forward pass.
    """

    name = "the model's own image encoder"

    def __init__(self, batch_size: int = 64) -> None:
        self.batch_size = batch_size

    def mark(self, device: torch.device) -> str:
        """Nothing: the evaluated model decides alone."""
        del device
        return ""

    def vectors(self, model: nn.Module, pictures: Iterable[Any], device: torch.device) -> Tensor:
        """See `PictureFeatures`.

        Raises:
            TypeError: a model without an image encoder.
        """
        encode: Callable[[Tensor], Tensor]
        if hasattr(model, "encode_image"):
            encode = model.encode_image
        elif hasattr(model, "image_encoder"):

            def encode(pixels: Tensor) -> Tensor:
                """The mean of the tokens of pixels (pictures, 3, side, side)."""
                return image_tokens(model.image_encoder, pixels).tokens.mean(dim=1)

        else:
            raise TypeError(f"own_features: {type(model).__name__} has no image encoder; take dual_encoder_features")
        processor: Any = model.processor
        found = embed_images(
            model, pictures, processor.images, batch_size=self.batch_size, device=device, encode=encode
        )
        return normalize(found, dim=-1)


@EVALUATORS.register_module(name="dual_encoder_features")
class DualEncoderFeatures:
    """Embeddings of a dual encoder (CLIP, EVA-CLIP, DeCLIP, a run of this library), read from a folder or file.

    Args:
        path: as `path` of `zoo.from_pretrained`; None where nobody gave one.
        batch_size: pictures or texts per forward pass.
    """

    def __init__(self, path: str | None, batch_size: int = 64) -> None:
        self.path, self.batch_size = path, batch_size
        self.name = f"the dual encoder {'(none given)' if path is None else Path(path).name}"
        self._model: nn.Module | None = None

    def encoder(self, device: torch.device) -> nn.Module:
        """The model, read once.

        Raises:
            ValueError: no path, or a model without texts and pictures.
        """
        from multimodal_zoo.zoo import from_pretrained

        if self._model is None:
            if self.path is None:
                raise ValueError("dual_encoder_features.path is null: give the folder or file of a dual encoder")
            self._model = from_pretrained(self.path)
            if not hasattr(self._model, "encode_image"):
                raise ValueError(f"dual_encoder_features.path: {self.path} is a {type(self._model).__name__}")
        return self._model.to(device)

    def mark(self, device: torch.device) -> str:
        """See `PictureFeatures`."""
        return fingerprint(self.encoder(device))

    def vectors(self, model: nn.Module, pictures: Iterable[Any], device: torch.device) -> Tensor:
        """See `PictureFeatures`."""
        own = self.encoder(device)
        processor: Any = own.processor
        found = embed_images(own, pictures, processor.images, batch_size=self.batch_size, device=device)
        return normalize(found, dim=-1)

    def texts(self, texts: list[str], device: torch.device) -> Tensor:
        """Normalised vectors of texts, float32 (texts, width) on the CPU."""
        own = self.encoder(device)
        found = text_embeddings(own, own.processor, texts, batch_size=self.batch_size, device=device)
        return normalize(found, dim=-1)


@EVALUATORS.register_module(name="transformers_features")
class TransformersFeatures:
    """A vision model of transformers in a local folder, its preparation of pictures included: DINO, DINOv2, ViT.

    Args:
        path: the folder, with `config.json`, weights and `preprocessor_config.json`; None where nobody gave one.
        batch_size: pictures per forward pass.
    """

    def __init__(self, path: str | None, batch_size: int = 64) -> None:
        self.path, self.batch_size = path, batch_size
        self.name = f"transformers' {'(none given)' if path is None else Path(path).name}"
        self._parts: tuple[nn.Module, Any] | None = None

    def _loaded(self) -> tuple[nn.Module, Any]:
        from transformers import AutoImageProcessor, AutoModel

        if self._parts is None:
            if self.path is None:
                raise ValueError("transformers_features.path is null: give the folder of a vision model")
            model = AutoModel.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
            prepare = AutoImageProcessor.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
            self._parts = (getattr(model, "vision_model", model).eval(), prepare)
        return self._parts

    def mark(self, device: torch.device) -> str:
        """See `PictureFeatures`."""
        del device
        return fingerprint(self._loaded()[0])

    def vectors(self, model: nn.Module, pictures: Iterable[Any], device: torch.device) -> Tensor:
        """See `PictureFeatures`; the class token behind the last norm, as DINO's scores take it."""
        own, prepare = self._loaded()
        own.to(device)

        def pixels(part: list[Any]) -> Tensor:
            """Pictures as the folder prepares them, (pictures, 3, side, side)."""
            found: Tensor = prepare(images=[as_rgb(one) for one in part], return_tensors="pt")["pixel_values"]
            return found

        def encode(part: Tensor) -> Tensor:
            """The class token, or the mean of a map without one."""
            found: Tensor = own(pixel_values=part).last_hidden_state
            return found[:, 0] if found.dim() == 3 else found.mean((2, 3))

        found = embed_images(own, pictures, pixels, batch_size=self.batch_size, device=device, encode=encode)
        return normalize(found, dim=-1)


def as_rgb(picture: Any) -> Any:
    """A picture, or an array of one, as PIL in RGB."""
    from PIL import Image

    return (Image.fromarray(picture) if not isinstance(picture, Image.Image) else picture).convert("RGB")
