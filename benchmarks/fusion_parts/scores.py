"""How models are scored: recalls, CIDEr by sentences made of the table, names that only who knows them can say."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion_parts.sets import STYLE
from multimodal_zoo.data.documents import Document, Image, pair
from multimodal_zoo.data.emoji_classes import colours_of
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.data.emoji_table import Emoji, load_table
from multimodal_zoo.data.emoji_triples import class_sentence, fused_target, specific_names

#: Kind of pictures -> splits: concepts of training in its largest size, concepts of no training.
PICTURES = {"seen": ("train",), "unseen": ("val", "test")}
RECALLS = ("R@1", "R@5", "concept_R@1", "concept_R@5")
#: Seeds of reference sentences; no caption of training has one of them.
SEEDS = (101, 102)
LONGEST = 64


def references(row: Emoji, colours: Sequence[str]) -> dict[str, list[str]]:
    """True sentences about a drawing: `whole` with name, keywords, kind and colours, `plain` with the last two alone.

    Args:
        row: of the table.
        colours: of the drawing.
    """
    plain = [class_sentence(row, seed, colours) for seed in SEEDS]
    whole = [fused_target(row, seed, said) for seed, said in zip(SEEDS, plain, strict=True)]
    return {"whole": [*whole, f"A picture of {row.name}, {', '.join(row.keywords)}."], "plain": plain}


def kept_names(caption: str, row: Emoji) -> float | None:
    """The share of a row's specific names that a caption says; None for a row without any."""
    names = specific_names(row)
    said = set(re.findall(r"[^\W_]+", caption.lower()))  # the web joins words by underscores
    return sum(name in said for name in names) / len(names) if names else None


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Mean over pictures and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "error": error, "count": len(values)}


def gallery(kind: str, size: int) -> list[Document]:
    """Pictures of a kind, always the same ones; all of them, where they are fewer."""
    from multimodal_zoo.evaluation.samples import Gallery

    return list(Gallery(EmojiPairs([STYLE], PICTURES[kind], 72), size, by="sequence"))


def described(documents: Sequence[Document]) -> list[str]:
    """A sentence about each picture that has its name, kind and colours; none is a caption of training."""
    rows = {row.sequence: row for row in load_table()}
    about = [rows[one.meta["sequence"]] for one in documents]
    return [
        fused_target(row, SEEDS[0], class_sentence(row, SEEDS[0], colours))
        for row, colours in zip(about, seen_colours(documents), strict=True)
    ]


def seen_colours(documents: Sequence[Document]) -> list[tuple[str, ...]]:
    """The colours of each drawing."""
    return list(colours_of(np.stack([np.asarray(one.image).transpose(2, 0, 1) for one in documents])))


def retrieval_scores(model: Path, size: int) -> dict[str, Any]:
    """Recalls, mean of both directions, with standard errors over pictures.

    Args:
        model: folder of a dual encoder.
        size: pictures of each kind; all unseen ones, where they are fewer.
    """
    import torch

    from multimodal_zoo.evaluation.retrieval import Retrieval
    from multimodal_zoo.zoo import from_pretrained

    encoder: Any = from_pretrained(str(model))
    found: dict[str, Any] = {}
    for kind in PICTURES:
        documents = gallery(kind, size)
        for texts, wanted in {"names": None, "sentences": described(documents)}.items():
            asked = (
                documents
                if wanted is None
                else [pair(one.image, text, one.meta) for one, text in zip(documents, wanted, strict=True)]
            )
            metrics = Retrieval(asked, concept="concept", examples=0)(
                encoder, encoder.processor, torch.device("cpu")
            ).metrics
            found[f"{kind} {texts}"] = {name: share_and_error(metrics[name], len(asked)) for name in RECALLS}
    return found


def share_and_error(share: float, queries: int) -> dict[str, float]:
    """A share of so many queries and its standard error; both directions of a picture count as one query."""
    return {"mean": share, "error": math.sqrt(max(share * (1 - share), 0.0) / queries), "count": queries}


def caption_scores(model: Path, size: int) -> dict[str, Any]:
    """CIDEr and kept names of the captions that a trained model writes, with standard errors over pictures.

    Args:
        model: its folder.
        size: pictures of each kind.
    """
    from multimodal_zoo.inference.chat import answer
    from multimodal_zoo.zoo import from_pretrained

    writer = from_pretrained(str(model))
    found: dict[str, Any] = {}
    for kind in PICTURES:
        documents = gallery(kind, size)
        asked = [Document([Image(one.image)], one.meta) for one in documents]
        said = answer(writer, asked, max_new_tokens=LONGEST, batch_size=100)
        found[kind] = judged(documents, said)
    return found


def judged(documents: Sequence[Document], said: Sequence[str]) -> dict[str, Any]:
    """CIDEr (a hundredfold, as papers print it), kept names and words of captions of pictures of `emoji_pairs`."""
    from multimodal_zoo.evaluation.caption_scores import caption_figures

    rows = {row.sequence: row for row in load_table()}
    about = [rows[one.meta["sequence"]] for one in documents]
    colours = seen_colours(documents)
    known = [references(row, seen) for row, seen in zip(about, colours, strict=True)]
    written = {one.key: text for one, text in zip(documents, said, strict=True)}
    cider: dict[str, dict[str, float]] = {}
    for kind in ("whole", "plain"):
        wanted = {one.key: texts[kind] for one, texts in zip(documents, known, strict=True)}
        cider[kind] = mean_and_error([100 * value for value in caption_figures(written, wanted, "ptb")[1].values()])
    names = [share for text, row in zip(said, about, strict=True) if (share := kept_names(text, row)) is not None]
    return {
        "cider": cider["whole"],
        "plain_cider": cider["plain"],
        "names": mean_and_error(names),
        "words": statistics.fmean(len(text.split()) for text in said),
        "distinct": len(set(said)) / len(said),
        "samples": [f"{row.name} -> {text}" for row, text in list(zip(about, said, strict=True))[:12]],
    }
