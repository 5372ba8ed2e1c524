"""Where an engine's model is: a folder as Hugging Face has them, a GGUF file, or an address of either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Pieces of a file that its fingerprint reads, evenly spread, and bytes of each; smaller files are read whole.
PIECES, PIECE = 64, 1 << 16


@dataclass(frozen=True)
class ModelFiles:
    """A model's files.

    Attributes:
        place: as the configuration names it.
        path: a GGUF file, or a folder.
    """

    place: str
    path: Path

    @property
    def is_gguf(self) -> bool:
        """Whether all is in one GGUF file."""
        return self.path.suffix == ".gguf"

    def files(self) -> list[Path]:
        """What the model is read from, in the order of names; hidden files and folders inside are left out."""
        if self.path.is_file():
            return [self.path]
        return sorted(one for one in self.path.iterdir() if one.is_file() and not one.name.startswith("."))


def find_model(place: str | Path) -> ModelFiles:
    """The files behind the `model` of an engine.

    Args:
        place: a `.gguf` file, a folder that holds exactly one, a folder with a `config.json` and weights,
            `package:NAME` for the file inside an installed package, or `hf://organisation/repository[@revision][/file]`.

    Raises:
        FileNotFoundError: nothing there; the message says how to get it.
        ValueError: a file or folder of another kind.
    """
    from multimodal_zoo.checkpoints.locate import resolve

    try:
        path = resolve(place)
    except FileNotFoundError as error:
        raise type(error)(f"fusion_engine.model: {error}") from error
    if path.is_file() and path.suffix == ".gguf":
        return ModelFiles(str(place), path)
    if path.is_dir():
        if (path / "config.json").is_file():
            return ModelFiles(str(place), path)
        alone = sorted(path.glob("*.gguf"))
        if len(alone) == 1:
            return ModelFiles(str(place), alone[0])
        found = ", ".join(one.name for one in sorted(path.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"fusion_engine.model: {place} holds no config.json and {len(alone)} .gguf files, one of which is expected;"
            f" found {found}"
        )
    raise ValueError(f"fusion_engine.model is {place}; expected a .gguf file or a folder with a config.json")


def gguf_path(place: str | Path) -> Path:
    """The GGUF file behind the `model` of an engine that reads nothing else.

    Raises:
        FileNotFoundError, ValueError: see `find_model`; or a folder without such a file.
    """
    found = find_model(place)
    if found.is_gguf:
        return found.path
    files = sorted(found.path.glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(f"fusion_engine.model: {place} holds {len(files)} .gguf files; name one of them")
    return files[0]


def fingerprint(files: Iterable[Path]) -> str:
    """A SHA-256 over names, sizes and evenly spread pieces of some files: enough to tell models apart, in a moment.

    Args:
        files: any; files of up to 4 MiB are read whole.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        for piece in _pieces(file, size):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(file: Path, size: int) -> Iterator[bytes]:
    if size <= PIECES * PIECE:
        yield file.read_bytes()
        return
    with file.open("rb") as opened:
        for number in range(PIECES):
            opened.seek((size - PIECE) * number // (PIECES - 1))  # the first piece begins the file, the last ends it
            yield opened.read(PIECE)
