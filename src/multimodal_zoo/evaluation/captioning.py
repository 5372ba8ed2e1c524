"""Naming pictures: what a model writes about them, and which of many names it finds likeliest."""

from __future__ import annotations

import re
from collections import Counter as Counted
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.visual_codes import with_codes
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.features import Counter, batched, evaluating
from multimodal_zoo.evaluation.likelihood import continuation_scores
from multimodal_zoo.evaluation.ranking import given, interval, rank_summary, ranks, recall_at
from multimodal_zoo.evaluation.result import Cell, Picture, Result, Table
from multimodal_zoo.evaluation.samples import attribution_of, describe, documents_of, numbered, size_of, skipped
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.registry import EVALUATORS

#: The k of R@k in the forced choice.
PLACES = (1, 5)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def word_f1(found: str, wanted: str) -> float:
    """Harmonic mean of precision and recall of the words, each counted as often as it occurs; 0 for none in common."""
    one, other = Counted(words(found)), Counted(words(wanted))
    common = sum((one & other).values())
    return 2 * common / (one.total() + other.total()) if common else 0.0


@EVALUATORS.register_module(name="captioning")
class Captioning:
    """Describe each picture, and choose its text among those of all.

    The choice is by the likelihood of each text, with the sequence's end, behind the picture; in the figures `gain_*`
    by how much likelier the picture makes a text than it is without one, so that texts that are common or short have
    no advantage. `name_nats` is how unlikely the right text is behind the picture, in nats.

    Args:
        dataset: documents of one picture and one text; their distinct texts are the choices.
        question: what is asked about each picture; empty where the model simply goes on behind it.
        batch_size: pictures per forward pass.
        max_new_tokens: most tokens of an answer.
        examples: pictures on the sheet; 0 draws none.
    """

    def __init__(
        self, dataset: Any, question: str = "", batch_size: int = 50, max_new_tokens: int = 32, examples: int = 12
    ) -> None:
        self.dataset = dataset
        self.question = question
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.examples = examples

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model that writes about pictures (`Emu3`).

        Raises:
            ValueError: an empty dataset, or a document without a picture or a text.
        """
        documents = list(documents_of(self.dataset))
        names = [document.text for document in documents]
        choices = list(dict.fromkeys(names))
        answers: list[str] = []
        likely, gain = [], []
        with evaluating(model), Counter("pictures", size_of(self.dataset)) as counter:
            plain = self._likelihoods(model, processor, choices, None)
            for batch in batched(documents, self.batch_size):
                coded = with_codes([self._asked(document) for document in batch], model, processor.transform,
                                   batch_size=self.batch_size, device=device)  # fmt: skip
                answers += answer(model, coded, max_new_tokens=self.max_new_tokens)
                for document in coded:
                    likely.append(self._likelihoods(model, processor, choices, document))
                    gain.append(likely[-1] - plain)
                counter.advance(len(batch))
        wanted, known = numbered(names), torch.arange(len(choices))
        nats = -torch.stack(likely).gather(1, wanted[:, None]).mean().item()
        found = {"choice": ranks(given(torch.stack(likely)), wanted, known)}
        found["gain"] = ranks(given(torch.stack(gain)), wanted, known)
        return self._result(documents, names, answers, found, {"choices": len(choices), "name_nats": nats})

    def _asked(self, document: Document) -> Document:
        """A document's picture with the question."""
        question = [Text(self.question)] if self.question else []
        return Document([Image(document.image), *question], document.meta)

    def _likelihoods(self, model: Any, processor: Any, choices: Sequence[str], asked: Document | None) -> Tensor:
        """How likely each choice is behind a picture, or at the beginning of a sequence: (choices,)."""
        codes = [segment.codes for segment in asked.segments if hasattr(segment, "codes")] if asked else []
        prompt = processor.understanding_prompt(self.question, codes) if codes else [processor.ids.bos]
        ends = [[*processor.text_ids(choice), processor.ids.eos] for choice in choices]
        return continuation_scores(model.decoder, prompt, ends)

    def _result(
        self,
        documents: Sequence[Document],
        names: Sequence[str],
        answers: Sequence[str],
        found: dict[str, Tensor],
        facts: dict[str, float],
    ) -> Result:
        pairs = list(zip(answers, names, strict=True))
        exact = sum(words(said) == words(name) for said, name in pairs) / len(pairs)
        choices = int(facts["choices"])
        metrics = {"exact": exact, "word_f1": sum(word_f1(said, name) for said, name in pairs) / len(pairs)}
        metrics["name_nats"] = facts["name_nats"]
        for kind, places in found.items():
            metrics |= {f"{kind}_{key}": value for key, value in recall_at(places, PLACES).items()}
            metrics[f"{kind}_median_rank"] = rank_summary(places)["median_rank"]
        low, high = interval(exact, len(pairs))
        written = Table(
            "what is written",
            ("pictures", "exactly the name", "95 % interval", "overlap of words (F1)"),
            [(len(pairs), exact, f"{low:.3f}-{high:.3f}", metrics["word_f1"])],
        )
        kinds = {"choice": "likelihood behind the picture", "gain": "gain over the text alone"}
        columns = [*(f"R@{k}" for k in PLACES), "median_rank"]
        rows: list[tuple[Cell, ...]] = [
            (title, *(metrics[f"{kind}_{column}"] for column in columns)) for kind, title in kinds.items()
        ]
        rows.append(("chance", *(min(1.0, k / choices) for k in PLACES), (choices + 1) / 2))
        chosen = Table(f"choice among {choices} texts", ("by", *(c.replace("_", " ") for c in columns)), rows)
        return Result(
            name="captioning",
            metrics=metrics,
            tables=[written, chosen],
            figures=self._figures(documents, pairs),
            details={
                "dataset": describe(self.dataset),
                "pictures": len(pairs),
                "choices": choices,
                "question": self.question,
                "skipped": skipped(self.dataset),
                "attribution": attribution_of(self.dataset),
            },
            headline=("exact", "word_f1", "choice_R@1", "choice_R@5"),
        )

    def _figures(self, documents: Sequence[Document], pairs: Sequence[tuple[str, str]]) -> dict[str, Picture]:
        if not self.examples:
            return {}
        shown = torch.linspace(0, len(pairs) - 1, min(self.examples, len(pairs))).long().tolist()
        texts = [[pairs[number][0] or "(nothing)", f"({pairs[number][1]})"] for number in shown]
        grades = [[_grade(*pairs[number]), "miss"] for number in shown]
        png = pictures.image_queries([documents[number].image for number in shown], texts, grades)
        caption = "Picture, what the model writes (green: the name, amber: some of its words), and its name in brackets"
        return {"answers": Picture(png, caption)}


def _grade(said: str, name: str) -> str:
    if words(said) == words(name):
        return "hit"
    return "related" if word_f1(said, name) else "miss"
