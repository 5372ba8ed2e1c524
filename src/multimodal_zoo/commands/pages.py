"""`mmzoo generate SOURCE prompt="..." pages=512`: pages of words and pictures that a model writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from multimodal_zoo.files import atomic_file, write_text

if TYPE_CHECKING:
    from multimodal_zoo.inference.interleaved import Page


def run_pages(config: DictConfig, model: Any, prompts: Sequence[str], pictures: Sequence[Path], folder: Path) -> None:
    """Write a page behind each prompt: NUMBER.md, its pictures beside it, or their embeddings where none are drawn.

    Args:
        config: see `conf/base/generate.yaml`.
        model: an Emu with its processor.
        prompts: texts.
        pictures: what the model sees before each of them.
        folder: where the pages go.

    Raises:
        TypeError: a model that does not write pages.
        ValueError: more steps than the decoder has positions.
    """
    from multimodal_zoo.commands.speaking import documents_of, sampling_of
    from multimodal_zoo.evaluation.environment import record_run
    from multimodal_zoo.inference.interleaved import write_pages
    from multimodal_zoo.inference.painter import SAMPLING

    sampling = sampling_of(config)
    pages = write_pages(
        model,
        documents_of(prompts, pictures),
        max_new_tokens=config.pages,
        pictures=config.pictures,
        sampling=None if sampling == SAMPLING else sampling,
        guidance=config.guidance,
        seed=config.seed,
        batch_size=config.batch_size,
        special=config.special,
    )
    record_run(folder, model)
    facts = []
    for number, (page, prompt) in enumerate(zip(pages, prompts, strict=True)):
        write_text(folder / f"{number:04d}.md", f"{prompt}\n\n{_body(page, f'{number:04d}', folder)}\n")
        found = {"prompt": prompt, "seed": config.seed + number, "text": page.text, "pictures": len(page.visual)}
        facts.append({**found, "ended": page.ended, "file": f"{number:04d}.md"})
    write_text(folder / "pages.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(pages)} pages, {sum(one['pictures'] for one in facts)} pictures: {folder}")


def _body(page: Page, name: str, folder: Path) -> str:
    """The page in Markdown; its pictures go into files."""
    import numpy as np

    from multimodal_zoo.data.documents import Image, Text

    parts, visual = [], iter(page.visual)
    for number, segment in enumerate(page.segments):
        if isinstance(segment, Text):
            parts.append(segment.text)
            continue
        shown: Any = segment.image if isinstance(segment, Image) else next(visual).numpy()
        file = f"{name}_{number}.{'png' if isinstance(segment, Image) else 'npy'}"
        with atomic_file(folder / file) as path:
            shown.save(path) if isinstance(segment, Image) else np.save(path, shown)
        parts.append(f"![]({file})" if isinstance(segment, Image) else f"[visual embeddings]({file})")
    return "\n\n".join(parts)
