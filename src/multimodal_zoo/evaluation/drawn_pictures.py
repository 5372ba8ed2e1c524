"""Pictures that a model draws for prompts: whether they show what was asked, and whether they are copies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as PilImage
from torch import Tensor, nn

from multimodal_zoo.data.captions import CaptionSampler, TextCaption
from multimodal_zoo.data.documents import Document
from multimodal_zoo.evaluation import neighbours
from multimodal_zoo.evaluation.drawing_sheet import drawing_sheet
from multimodal_zoo.evaluation.features import Counter, batched, evaluating
from multimodal_zoo.evaluation.likelihood import picture_scores
from multimodal_zoo.evaluation.neighbours import COPY, Nearest, Seen
from multimodal_zoo.evaluation.ranking import inner_products, ranks, recall_at
from multimodal_zoo.evaluation.result import Picture, Result, Table
from multimodal_zoo.evaluation.samples import (
    attribution_of,
    describe,
    documents_of,
    evenly,
    numbered,
    pick_images,
    usable_documents,
)
from multimodal_zoo.evaluation.workspace import Workspace
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.registry import EVALUATORS

#: The k of R@k.
PLACES = (1, 5)


@dataclass(frozen=True)
class _Round:
    """What one evaluation compares.

    Attributes:
        documents: prompts and true pictures.
        drawn: the drawings.
        drawing: the drawings as the tokenizer sees them.
        true: the true pictures likewise.
        passed: the true pictures as the tokenizer gives them back.
        training: the training pictures as the tokenizer sees them.
        name: of the training pictures.
        behind: log-probability per code of each true picture behind its prompt.
        alone: the same behind no text.
    """

    documents: list[Document]
    drawn: list[PilImage]
    drawing: Seen
    true: Seen
    passed: list[PilImage]
    training: Seen
    name: str
    behind: Tensor
    alone: Tensor


@EVALUATORS.register_module(name="drawn_pictures")
class DrawnPictures:
    """Draw a picture for the text of each document, and compare it with the true picture and all training pictures.

    * Copying: the nearest training picture of each drawing by pixels (root of the mean squared difference of values
      from 0 to 1) and by codes (share of places with the same code); the same for the true pictures, of which none is
      a copy, is what to compare with.
    * Likelihood: how unlikely the true picture is behind its prompt and behind none, in nats per code (`code_nats`,
      `code_nats_without_text`).
    * Agreement, if a dual encoder is given: the rank of the prompt among the texts of all documents by each drawing's
      embedding; the same for the true pictures as they are, and as the visual tokenizer gives them back, are what to
      compare with.

    Args:
        dataset: documents of one picture and one text.
        training: the pictures that were trained on.
        prompt: makes the prompt of a document; None takes its text.
        clip: folder or file of a dual encoder; None leaves its figures out.
        guidance: scale of classifier-free guidance; None takes the published one.
        sampling: arguments of `Sampling`; None takes the published ones.
        seed: of the drawings.
        batch_size: pictures drawn at a time.
        examples: prompts on the sheet; 0 draws none.
    """

    def __init__(
        self,
        dataset: Any,
        training: Any,
        prompt: CaptionSampler | None = None,
        clip: str | None = None,
        guidance: float | None = None,
        sampling: Mapping[str, Any] | None = None,
        seed: int = 0,
        batch_size: int = 50,
        examples: int = 12,
    ) -> None:
        self.dataset = dataset
        self.training = training
        self.prompt = prompt or TextCaption()
        self.clip = clip
        self.guidance = guidance
        self.sampling = None if sampling is None else Sampling(**sampling)
        self.seed = seed
        self.batch_size = batch_size
        self.examples = examples
        self.workspace = Workspace(None, "")

    def share(self, workspace: Workspace) -> None:
        """Take the suite's workspace: several evaluations compare with the same training pictures."""
        self.workspace = workspace

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model that draws (`Emu3`).

        Raises:
            ValueError: an empty dataset, or pictures of different sizes.
            FileNotFoundError, RuntimeError: no dual encoder at `clip`; said before anything is drawn.
        """
        encoder = None if self.clip is None else _encoder(self.clip, device)
        found = self._look(model, processor, device)
        by_pixels, by_codes = _nearest(found.drawing, found.training)
        metrics, tables = _copying(found, by_pixels, by_codes)
        metrics |= {"code_nats": -found.behind.mean().item(), "code_nats_without_text": -found.alone.mean().item()}
        nearest = {"pixels": by_pixels, "codes": by_codes}
        headline = ["copied", "code_overlap", "code_nats"]
        if encoder is not None:
            gallery = self.workspace.once(
                ("training embeddings", found.name, str(self.clip)), lambda: _gallery(encoder, found.training)
            )
            agreed, table, by_vectors = _agreement(encoder, found, gallery)
            metrics, tables, nearest = {**metrics, **agreed}, [table, *tables], {**nearest, "CLIP": by_vectors}
            headline = ["clip_R@1", "clip_R@5", *headline]
        details = {
            "dataset": describe(self.dataset),
            "prompts": len(found.documents),
            "training_pictures": len(found.training),
            "clip": self.clip or "not given, so how well drawings fit their prompts was not measured",
            "guidance": "published" if self.guidance is None else self.guidance,
            "sampling": str(self.sampling or "published"),
            "seed": self.seed,
            "attribution": attribution_of(self.dataset),
        }
        return Result("drawn_pictures", metrics, tables, self._figures(found, nearest), details, tuple(headline))

    def _look(self, model: nn.Module, processor: Any, device: torch.device) -> _Round:
        """Draw, and see all pictures as the model does."""
        documents = usable_documents(self.dataset)
        prompts = self.prompts(documents)
        drawn, codes = self._draw(model, prompts)
        with evaluating(model):
            true = neighbours.seen(model, processor, (d.image for d in documents), device, self.batch_size)
            trained = list(documents_of(self.training))
            return _Round(
                documents=documents,
                drawn=drawn,
                drawing=Seen(neighbours.as_pixels(drawn), codes),
                true=true,
                passed=self._decoded(model, processor, true.codes, device),
                training=self.workspace.once(
                    ("training pictures", keys_of(trained)),
                    lambda: neighbours.seen(model, processor, (d.image for d in trained), device, self.batch_size),
                ),
                name=keys_of(trained),
                behind=picture_scores(model, processor, prompts, true.codes),
                alone=picture_scores(model, processor, [""] * len(prompts), true.codes),
            )

    def prompts(self, documents: Sequence[Document]) -> list[str]:
        """The prompt of each document."""
        return [self.prompt(document, Random(self.seed + place)) for place, document in enumerate(documents)]

    def _draw(self, model: nn.Module, prompts: Sequence[str]) -> tuple[list[PilImage], Tensor]:
        images, codes = [], []
        with evaluating(model), Counter("drawings", len(prompts)) as counter:
            for number, batch in enumerate(batched(prompts, self.batch_size)):
                for one in draw(
                    model,
                    batch,
                    guidance=self.guidance,
                    sampling=self.sampling,
                    seed=self.seed + number * self.batch_size,
                ):
                    images.append(one.image)
                    codes.append(torch.as_tensor(one.codes).cpu())
                counter.advance(len(batch))
        return images, torch.stack(codes)

    def _decoded(self, model: Any, processor: Any, codes: Tensor, device: torch.device) -> list[PilImage]:
        """Pictures as the visual tokenizer gives them back."""
        return [
            image
            for batch in codes.split(self.batch_size)
            for image in processor.pictures(model.decode(batch.to(device)).float().cpu())
        ]

    def _figures(self, found: _Round, nearest: Mapping[str, Nearest]) -> dict[str, Picture]:
        if not self.examples:
            return {}
        places = evenly(len(found.documents), self.examples)
        wanted = {int(one.number[place]) for one in nearest.values() for place in places}
        gallery = pick_images(self.training, wanted)
        columns: dict[str, list[tuple[Any, str]]] = {"drawn": [(found.drawn[place], "") for place in places]}
        for kind, one in nearest.items():
            columns[f"nearest by {kind}"] = [
                (gallery[int(one.number[place])], f"{float(one.value[place]):.2f}") for place in places
            ]
        columns["true picture"] = [(found.documents[place].image, "") for place in places]
        prompts = self.prompts(found.documents)
        png = drawing_sheet([prompts[place] for place in places], columns)
        caption = (
            "Prompt, drawing, the nearest training pictures (with the difference of pixels, the share of equal codes"
            f"{', the cosine of CLIP' if 'CLIP' in nearest else ''}), and the true picture"
        )
        return {"drawings": Picture(png, caption)}


def keys_of(documents: Sequence[Document]) -> str:
    """A hash of the documents' names and pictures' sizes, in their order."""
    facts = (f"{document.key} {np.asarray(document.image).shape}" for document in documents)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _nearest(pictures: Seen, training: Seen) -> tuple[Nearest, Nearest]:
    by_pixels = neighbours.nearest_pixels(pictures.pixels, training.pixels)
    return by_pixels, neighbours.nearest_codes(pictures.codes, training.codes)


def _copying(found: _Round, by_pixels: Nearest, by_codes: Nearest) -> tuple[dict[str, float], list[Table]]:
    """Figures of drawings beside those of the true pictures."""
    true_pixels, true_codes = _nearest(found.true, found.training)
    rows: list[tuple[str | float, ...]] = []
    metrics: dict[str, float] = {}
    for prefix, title, pixels, codes in (
        ("", "drawings", by_pixels, by_codes),
        ("true_", "true pictures", true_pixels, true_codes),
    ):
        values = {
            "to_training": pixels.value.mean().item(),
            "code_overlap": codes.value.mean().item(),
            "copied": (codes.value >= COPY).float().mean().item(),
        }
        metrics |= {prefix + key: value for key, value in values.items()}
        rows.append((title, *values.values()))
    metrics["to_true"] = neighbours.distances(found.drawing.pixels, found.true.pixels).mean().item()
    head = ("", "difference to the nearest", "equal codes with the nearest", f"share with {COPY:.0%} equal codes")
    return metrics, [Table("nearest training picture", head, rows)]


def _encoder(clip: str, device: torch.device) -> nn.Module:
    from multimodal_zoo.zoo import from_pretrained

    return from_pretrained(clip).to(device)


def _gallery(encoder: nn.Module, training: Seen) -> Tensor:
    """Embeddings of the training pictures by a dual encoder."""
    from PIL import Image

    return neighbours.embeddings(encoder, [Image.fromarray(one) for one in training.pixels.numpy()], [])[0]


def _agreement(encoder: nn.Module, found: _Round, gallery: Tensor) -> tuple[dict[str, float], Table, Nearest]:
    """How a dual encoder places the prompts, and the training picture that it finds nearest to each drawing."""
    from PIL import Image

    texts = [document.text for document in found.documents]
    labels, distinct = numbered(texts), list(dict.fromkeys(texts))
    true = [Image.fromarray(pixels) for pixels in found.true.pixels.numpy()]
    vectors, words = neighbours.embeddings(encoder, [*found.drawn, *found.passed, *true], distinct)
    drawn = vectors[: len(texts)]
    metrics: dict[str, float] = {}
    rows: list[tuple[str | float, ...]] = []
    titles = {"clip": "drawings", "tokenizer": "true pictures through the tokenizer", "true": "true pictures"}
    for (name, title), some in zip(titles.items(), vectors.split(len(texts)), strict=True):
        places = ranks(inner_products(some, words), labels, torch.arange(len(distinct)))
        values = recall_at(places, PLACES)
        values["cosine"] = (some * words[labels]).sum(dim=1).mean().item()
        metrics |= {f"{name}_{key}": value for key, value in values.items()}
        rows.append((title, *values.values()))
    rows.append(("chance", *(min(1.0, k / len(distinct)) for k in PLACES), "-"))
    head = ("pictures", *(f"R@{k}" for k in PLACES), "cosine with the prompt")
    table = Table(f"the prompt among {len(distinct)} by CLIP", head, rows)
    return metrics, table, neighbours.nearest_vectors(drawn, gallery)
