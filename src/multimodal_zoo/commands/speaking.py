"""What `mmzoo generate` and `mmzoo chat` read alike of their configurations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from multimodal_zoo.data.documents import Document
    from multimodal_zoo.generation.sampling import Sampling


def load_speaker(config: DictConfig, command: str) -> Any:
    """The model on its device, in `dtype`: an Emu whole, of others the decoder, as published."""
    from multimodal_zoo.checkpoints.store import find_dtype
    from multimodal_zoo.commands.eval import load_model
    from multimodal_zoo.commands.machine import device_of
    from multimodal_zoo.decoders.emu import Emu

    device = device_of(config.device)
    model = load_model(config, command)
    if config.dtype is not None and hasattr(model, "decoder"):
        (model if isinstance(model, Emu) else model.decoder).to(find_dtype(config.dtype))
    return model.to(device)


def sampling_of(config: DictConfig) -> Sampling:
    """How tokens are chosen."""
    from multimodal_zoo.generation.sampling import Sampling

    values: Any = OmegaConf.to_container(config.sampling, resolve=True)
    return Sampling(**values)


def listed(value: Any) -> list[str]:
    """A text, or several, as a list."""
    return [str(one) for one in value] if OmegaConf.is_list(value) else [str(value)]


def paths_of(value: Any, key: str) -> list[Path]:
    """A path, or several.

    Raises:
        FileNotFoundError: a file that is not there.
    """
    found = [] if value is None else [Path(one) for one in listed(value)]
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"{key}={path}: no such picture")
    return found


def documents_of(prompts: Sequence[str], pictures: Sequence[Path]) -> list[Document]:
    """A document of each prompt, behind all the pictures."""
    from multimodal_zoo.data.documents import Document, Image, Text
    from multimodal_zoo.data.pictures import load, open_picture

    seen = [Image(load(open_picture(path))) for path in pictures]
    return [Document([*seen, Text(text)]) for text in prompts]
