"""Naming pictures: what a model writes about them, and which of many names it finds likeliest."""

from __future__ import annotations

import copy
import re
from collections import Counter as Counted
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.choices import Share, check_choices, shares
from multimodal_zoo.evaluation.features import Counter, batched, evaluating
from multimodal_zoo.evaluation.likelihood import continuation_scores
from multimodal_zoo.evaluation.ranking import given, interval, rank_summary, ranks, recall_at
from multimodal_zoo.evaluation.result import Cell, Picture, Result, Table
from multimodal_zoo.evaluation.samples import (
    attribution_of,
    describe,
    evenly,
    numbered,
    size_of,
    skipped,
    usable_documents,
)
from multimodal_zoo.evaluation.shots import Shots, in_context
from multimodal_zoo.evaluation.workspace import Workspace, share
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.writers import writer_of
from multimodal_zoo.registry import EVALUATORS

#: The k of R@k in the forced choice.
PLACES = (1, 5)
#: What texts are chosen by.
KINDS = {"choice": "likelihood behind the picture", "gain": "gain over the text alone"}


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
    no advantage. `name_nats` is how unlikely the right text is behind the picture, in nats. `choice_of_K` is the share
    of pictures whose own text wins among K, the others being any of the rest: the mean over all draws of them.

    Args:
        dataset: documents of one picture and one text; their distinct texts are the choices.
        question: what is asked about each picture; empty where the model simply goes on behind it.
        batch_size: pictures per forward pass.
        max_new_tokens: most tokens of an answer.
        examples: pictures on the sheet; 0 draws none.
        choices: numbers of texts to choose among, beside all of them.
        shots: examples in front of each picture (`random_shots`, `rices_shots`); None for none.
        ending: put behind each text that is chosen from, as in training.
    """

    def __init__(
        self,
        dataset: Any,
        question: str = "",
        batch_size: int = 50,
        max_new_tokens: int = 32,
        examples: int = 12,
        choices: Sequence[int] = (),
        shots: Shots | None = None,
        ending: str = "",
    ) -> None:
        self.dataset, self.ending = dataset, ending
        self.shots = shots
        self.question = question
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.examples = examples
        self.choices = tuple(choices)

    def with_shots(self, count: int) -> Captioning:
        """The same with another number of examples.

        Raises:
            ValueError: without `shots`, or more than there are.
        """
        if self.shots is None:
            raise ValueError("captioning.shots is null: say where examples come from (random_shots, rices_shots)")
        other = copy.copy(self)
        other.shots = self.shots.taking(count)
        return other

    def share(self, workspace: Workspace) -> None:
        """Let examples keep what they compute."""
        share(self.shots, workspace)

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model that writes about pictures (`Emu3`, `Eve`).

        Raises:
            TypeError: a model that does not write.
            ValueError: an empty dataset, or a document without a picture or a text.
        """
        del processor  # the writer finds it at the model
        writer, documents = writer_of(model, "captioning"), usable_documents(self.dataset)
        names = [document.text for document in documents]
        choices = list(dict.fromkeys(names))
        check_choices(len(choices), self.choices)
        answers: list[str] = []
        likely, gain = [], []
        if self.shots is not None:
            self.shots.ready(model, device)
        with evaluating(model), Counter("pictures", size_of(self.dataset)) as counter:
            ends = [writer.continuation(self.question, choice + self.ending, end=True) for choice in choices]

            def scores(prompt: PromptBatch) -> Tensor:
                """How likely each choice is behind a prompt, (choices,)."""
                return continuation_scores(writer.model.decoder, prompt, ends)

            plain = scores(writer.blank(self.question, device))
            for batch in batched(documents, self.batch_size):
                seen = writer.seen(self._asked(batch), device)
                answers += answer(model, seen, max_new_tokens=self.max_new_tokens)
                for document in seen:
                    likely.append(scores(writer.prompts([document], False, device)))
                    gain.append(likely[-1] - plain)
                counter.advance(len(batch))
        wanted, known = numbered(names), torch.arange(len(choices))
        nats = -torch.stack(likely).gather(1, wanted[:, None]).mean().item()
        found = {"choice": ranks(given(torch.stack(likely)), wanted, known)}
        found["gain"] = ranks(given(torch.stack(gain)), wanted, known)
        return self._result(documents, names, answers, found, {"choices": len(choices), "name_nats": nats})

    def _asked(self, documents: Sequence[Document]) -> list[Document]:
        """The documents' pictures with the question, behind their examples."""
        question = [Text(self.question, role="user" if self.shots else None)] if self.question else []
        asked = [Document([Image(one.image), *question], one.meta) for one in documents]
        if self.shots is None or not self.shots.count:
            return asked
        examples = self.shots.chosen(asked)
        return [in_context(some, one, self.shots.pictures) for some, one in zip(examples, asked, strict=True)]

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
        few = {kind: shares(places, choices, self.choices) for kind, places in found.items()}
        for kind, each in few.items():
            metrics |= {f"{kind}_of_{count}": share.value for count, share in each.items()}
        return Result(
            name="captioning",
            metrics=metrics,
            tables=[written, self._chosen(metrics, choices), *self._among(few)],
            figures=self._figures(documents, pairs),
            details={
                "dataset": describe(self.dataset),
                "pictures": len(pairs),
                "choices": choices,
                "intervals": {f"{kind}_of_{n}": [s.low, s.high] for kind, each in few.items() for n, s in each.items()},
                "question": self.question,
                "shots": None if self.shots is None else f"{self.shots.count}, {self.shots.name}",
                "skipped": skipped(self.dataset),
                "attribution": attribution_of(self.dataset),
            },
            headline=("exact", "word_f1", "choice_R@1", "choice_R@5"),
        )

    @staticmethod
    def _chosen(metrics: Mapping[str, float], choices: int) -> Table:
        columns = [*(f"R@{k}" for k in PLACES), "median_rank"]
        rows: list[tuple[Cell, ...]] = [
            (title, *(metrics[f"{kind}_{column}"] for column in columns)) for kind, title in KINDS.items()
        ]
        rows.append(("chance", *(min(1.0, k / choices) for k in PLACES), (choices + 1) / 2))
        return Table(f"choice among {choices} texts", ("by", *(c.replace("_", " ") for c in columns)), rows)

    def _among(self, few: Mapping[str, Mapping[int, Share]]) -> list[Table]:
        if not self.choices:
            return []
        rows: list[tuple[Cell, ...]] = [
            (title, *(str(share) for share in few[kind].values())) for kind, title in KINDS.items()
        ]
        rows.append(("chance", *(1 / count for count in self.choices)))
        columns = ("by", *(f"of {count}" for count in self.choices))
        return [Table("choice among a few texts, with 95 % intervals", columns, rows)]

    def _figures(self, documents: Sequence[Document], pairs: Sequence[tuple[str, str]]) -> dict[str, Picture]:
        if not self.examples:
            return {}
        shown = evenly(len(pairs), self.examples)
        texts = [[pairs[number][0] or "(nothing)", f"({pairs[number][1]})"] for number in shown]
        grades = [[_grade(*pairs[number]), "miss"] for number in shown]
        png = pictures.image_queries([documents[number].image for number in shown], texts, grades)
        caption = "Picture, what the model writes (green: the name, amber: some of its words), and its name in brackets"
        return {"answers": Picture(png, caption)}


def _grade(said: str, name: str) -> str:
    if words(said) == words(name):
        return "hit"
    return "related" if word_f1(said, name) else "miss"
