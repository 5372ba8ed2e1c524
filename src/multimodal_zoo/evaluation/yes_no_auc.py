"""Yes-or-no questions by how much likelier a yes is: the area under the curve, which needs no threshold."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Text
from multimodal_zoo.evaluation.asking import Asking, written_as
from multimodal_zoo.evaluation.features import Counter
from multimodal_zoo.evaluation.likelihood import likelihoods
from multimodal_zoo.evaluation.result import Result, Table
from multimodal_zoo.evaluation.shots import Shots, in_context
from multimodal_zoo.evaluation.vqa_questions import QuestionSet
from multimodal_zoo.evaluation.workspace import Workspace, share
from multimodal_zoo.inference.speaking import evaluating
from multimodal_zoo.inference.writers import writer_of
from multimodal_zoo.registry import EVALUATORS

#: What a record may hold, as text -> whether it is a yes.
TRUTHS = {"0": False, "1": True, "False": False, "True": True, "0.0": False, "1.0": True}


def area_under_curve(scores: Tensor, labels: Tensor) -> float:
    """How often a positive is above a negative, equal ones counting half: the area under the ROC curve.

    Args:
        scores: (items,).
        labels: (items,) bool.

    Raises:
        ValueError: no positive, or no negative.
    """
    positive, negative = scores[labels].double(), scores[~labels].double().sort().values
    if not len(positive) or not len(negative):
        raise ValueError(f"an area under the curve needs both kinds, got {len(positive)} and {len(negative)}")
    below = torch.searchsorted(negative, positive, right=False)
    upto = torch.searchsorted(negative, positive, right=True)
    return float(((below + upto) / 2).sum() / (len(positive) * len(negative)))


@EVALUATORS.register_module(name="yes_no_auc")
class YesNoAuc:
    """Hateful Memes (arXiv 2005.04790) and the like: is a picture of a kind?

    Args:
        questions: with the truth, 0 or 1, in a column of its records.
        name: of the benchmark.
        asking: words around questions; None for the questions as they are.
        shots: examples with answers in front of each question; None for none.
        label: the column.
        words: what yes and no are.
        first: only so many questions; None for all.
    """

    def __init__(
        self,
        questions: QuestionSet,
        name: str,
        asking: Asking | None = None,
        shots: Shots | None = None,
        label: str = "label",
        words: tuple[str, str] = ("yes", "no"),
        first: int | None = None,
    ) -> None:
        self.questions, self.name, self.asking, self.shots = questions, name, asking or Asking(), shots
        self.label, self.words, self.first = label, tuple(words), first

    def with_shots(self, count: int) -> YesNoAuc:
        """The same with another number of examples.

        Raises:
            ValueError: without `shots`, or more than there are.
        """
        if self.shots is None:
            raise ValueError("yes_no_auc.shots is null: say where examples come from (random_shots, rices_shots)")
        other = copy.copy(self)
        other.shots = self.shots.taking(count)
        return other

    def share(self, workspace: Workspace) -> None:
        """Let examples keep what they compute."""
        share(self.shots, workspace)

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Measure.

        Raises:
            TypeError: a model that does not write.
            ValueError: no question, or one whose truth is not there.
        """
        del processor
        questions = self.questions.read()[: self.first]
        lost = [one.key for one in questions if one.facts.get(self.label) is None]
        if lost or not questions:
            what = f"question {lost[0]!r} has no {self.label!r}" if lost else "there is no question"
            raise ValueError(f"yes_no_auc.questions: {what}")
        strange = [one for one in questions if str(one.facts[self.label]) not in TRUTHS]
        if strange:
            raise ValueError(
                f"yes_no_auc.label: question {strange[0].key!r} has {strange[0].facts[self.label]!r} as its "
                f"{self.label!r}; expected 0 or 1"
            )
        if self.shots is not None:
            self.shots.ready(model, device)
        scores = []
        with written_as(model, self.asking.template), evaluating(model) as where:
            writer = writer_of(model, "yes_no_auc")
            with Counter(f"questions of {self.name}", len(questions)) as counter:
                for one in questions:
                    document = one.document()
                    if self.shots is not None and self.shots.count:
                        document = in_context(self.shots.chosen([document])[0], document, self.shots.pictures)
                    asked = self.asking.document(document)
                    last = next((part.text for part in reversed(asked.segments) if isinstance(part, Text)), "")
                    ends = [writer.continuation(last, word, end=False) for word in self.words]
                    prompt = writer.prompts([asked], False, where)
                    yes, no = likelihoods(writer.model.decoder, prompt, ends).scores.tolist()
                    scores.append(yes - no)
                    counter.advance(1)
        return self._result(
            torch.tensor(scores), torch.tensor([TRUTHS[str(one.facts[self.label])] for one in questions])
        )

    def _result(self, scores: Tensor, labels: Tensor) -> Result:
        accuracy = ((scores > 0) == labels).double().mean().item()
        metrics = {"auc": area_under_curve(scores, labels), "accuracy": accuracy}
        rows = [(len(labels), int(labels.sum()), metrics["auc"], accuracy)]
        table = Table(self.name, ("questions", "of them yes", "area under the curve", "accuracy"), rows)
        details = {
            "asking": self.asking.settings,
            "shots": None if self.shots is None else f"{self.shots.count}, {self.shots.name}",
        }
        return Result(self.name, metrics, [table], {}, details, ("auc",))
