"""`mmzoo generate SOURCE prompt="..." [ratio=4:3 ...]`: pictures, clips, or pages of words and pictures, from texts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from multimodal_zoo.files import atomic_file, read_lines, write_text

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    from multimodal_zoo.commands.live import DrawingBar
    from multimodal_zoo.generation.sampling import Sampling

#: What is kept of the configuration in drawings.json.
KEPT = ("ratio", "area", "guidance", "steps", "sampling", "special", "frames", "frame_rate", "image")


def run(config: DictConfig) -> float | None:
    """Draw what the configuration names.

    Args:
        config: see `conf/base/generate.yaml`.

    Raises:
        ValueError: no prompt, random weights that were not asked for, settings out of bounds.
        FileNotFoundError: no such file of prompts, or picture.
        TypeError: a model that does not draw.
    """
    from multimodal_zoo.commands.live import DrawingBar
    from multimodal_zoo.commands.machine import use_threads
    from multimodal_zoo.commands.pages import run_pages
    from multimodal_zoo.commands.speaking import load_speaker, paths_of, sampling_of
    from multimodal_zoo.evaluation.environment import record_run

    prompts = read_prompts(config)
    pictures = paths_of(config.image, "image")
    sampling = sampling_of(config)
    use_threads(config.threads)
    model = load_speaker(config, "generate")
    folder = Path(config.run.dir).resolve()
    if config.pages is not None:
        run_pages(config, model, prompts, pictures, folder)
        return None
    done: list[dict[str, Any]] = []
    start = time.perf_counter()
    with DrawingBar(len(prompts) * config.images, folder / "preview.png" if config.preview else None) as bar:
        for part in _batches(len(prompts), config):
            common = _settings(config, part, len(prompts))
            drawn = _drawn(model, prompts[part], pictures, config, common, sampling, bar)
            if not done:
                record_run(folder, model)
            for number, one in enumerate(drawn, start=len(done)):
                _save(folder, f"{number:04d}", one, config)
                done.append({**one["facts"], "file": f"{number:04d}{'.webp' if config.frames else '.png'}"})
            _describe(folder, config, done, bar.unit, bar.done / (time.perf_counter() - start))
    print(f"{len(done)} drawn, {bar.done / (time.perf_counter() - start):,.1f} {bar.unit}/s: {folder}")
    return None


def read_prompts(config: DictConfig) -> list[str]:
    """The prompts of the command line and of a file.

    Raises:
        ValueError: none at all.
        FileNotFoundError: no such file.
    """
    from multimodal_zoo.commands.speaking import listed

    given = [] if config.prompt is None else listed(config.prompt)
    if config.prompts is not None:
        if not Path(config.prompts).is_file():
            raise FileNotFoundError(f"prompts={config.prompts}: no such file; it has one prompt a line")
        given += read_lines(config.prompts, "list of prompts")
    found = [text for text in given if text]
    if not found:
        raise ValueError('prompt: nothing to draw; give prompt="a red kite", or prompts=FILE with one a line')
    return found


def _batches(prompts: int, config: DictConfig) -> list[slice]:
    """Which prompts are drawn together."""
    from multimodal_zoo.inference.speaking import parts_of

    for key in ("batch_size", "images"):
        if config[key] is not None and config[key] < 1:
            raise ValueError(f"{key} is {config[key]}; expected at least 1")
    return parts_of(prompts, config.batch_size and max(1, config.batch_size // config.images))


def _settings(config: DictConfig, part: slice, prompts: int) -> dict[str, Any]:
    """What some of the prompts are drawn with; of lists with one value for each prompt, their share.

    Raises:
        ValueError: a list of another length than there are prompts.
    """
    from multimodal_zoo.inference.speaking import for_each

    plain: Any = OmegaConf.to_container(config, resolve=True)
    each = {key: plain[key] for key in ("negative", "ratio")}
    shares = {
        key: for_each(value, prompts, key)[part] if isinstance(value, list) else value for key, value in each.items()
    }
    seed = config.seed + part.start * config.images
    return {**shares, "area": plain["area"], "guidance": plain["guidance"], "special": plain["special"], "seed": seed}


def _drawn(
    model: Any,
    prompts: Sequence[str],
    pictures: Sequence[Path],
    config: DictConfig,
    common: Mapping[str, Any],
    sampling: Sampling,
    bar: DrawingBar,
) -> list[dict[str, Any]]:
    """Pictures or clips of some prompts, each with its frames, its codes and what is known of it."""
    from multimodal_zoo.commands.speaking import documents_of
    from multimodal_zoo.inference.painter import SAMPLING
    from multimodal_zoo.inference.text_to_image import draw

    how: dict[str, Any] = {**common, "sampling": None if sampling == SAMPLING else sampling, "on_step": bar}
    if config.frames is not None:
        return _clips(model, prompts, pictures, config, how)
    drawn = draw(
        model,
        documents_of(prompts, pictures),
        **how,
        steps=config.steps,
        per_prompt=config.images,
        suffix=config.suffix,
        batch_size=config.batch_size,
    )
    return [
        {"frames": [one.image], "codes": one.codes, "facts": {"prompt": one.prompt, "seed": one.seed}} for one in drawn
    ]


def _clips(
    model: Any, prompts: Sequence[str], pictures: Sequence[Path], config: DictConfig, common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    from multimodal_zoo.inference.video import draw_video

    if pictures or config.suffix is not None or config.steps is not None:
        raise ValueError("frames: clips are drawn from texts as they are, by tokens; leave image, suffix and steps out")
    texts = [text for text in prompts for _ in range(config.images)]
    lists = {key: value for key, value in common.items() if isinstance(value, list)}  # one for each prompt
    repeated = {key: [one for one in value for _ in range(config.images)] for key, value in lists.items()}
    clips = draw_video(model, texts, frames=config.frames, **{**common, **repeated})
    return [
        {"frames": clip.frames, "codes": clip.codes, "facts": {"prompt": text, "seed": common["seed"] + number}}
        for number, (clip, text) in enumerate(zip(clips, texts, strict=True))
    ]


def _save(folder: Path, name: str, one: Mapping[str, Any], config: DictConfig) -> None:
    frames: list[PilImage] = one["frames"]
    if config.frames is None:
        with atomic_file(folder / f"{name}.png") as path:
            frames[0].save(path)
    else:
        with atomic_file(folder / f"{name}.webp") as path:
            more = {"append_images": frames[1:], "duration": round(1000 / config.frame_rate), "loop": 0}
            frames[0].save(path, save_all=True, lossless=True, **more)
    if config.codes:
        import numpy as np

        with atomic_file(folder / f"{name}.npy") as path:
            codes = one["codes"].numpy()
            np.save(path, codes if codes.dtype == np.float32 else codes.astype(np.int32))


def _describe(folder: Path, config: DictConfig, done: list[dict[str, Any]], unit: str, rate: float) -> None:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    settings = {key: plain[key] for key in (*KEPT, "negative", "suffix")}
    content = {"settings": settings, f"{unit}_per_second": round(rate, 2), "drawings": done}
    write_text(folder / "drawings.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
