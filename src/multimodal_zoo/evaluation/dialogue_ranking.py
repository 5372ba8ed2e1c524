"""Visual dialogue: a hundred possible answers to each question, ranked by how likely the model finds them (VisDial)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.evaluation.asking import written_as
from multimodal_zoo.evaluation.features import Counter
from multimodal_zoo.evaluation.likelihood import likelihoods
from multimodal_zoo.evaluation.ranking import rank_summary, recall_at
from multimodal_zoo.evaluation.result import Result, Table
from multimodal_zoo.evaluation.vqa_questions import below, json_at
from multimodal_zoo.evaluation.vqa_scores import mean
from multimodal_zoo.files import reading
from multimodal_zoo.inference.speaking import evaluating
from multimodal_zoo.inference.writers import Writer, writer_of
from multimodal_zoo.registry import EVALUATORS

#: The k of R@k.
PLACES = (1, 5, 10)


class Round(NamedTuple):
    """One question of a dialogue.

    Attributes:
        image: number of the picture.
        before: earlier questions and true answers.
        question: what is asked.
        options: possible answers.
        right: place of the true one.
        relevance: how right people find each option, in [0, 1]; None where they were not asked.
    """

    image: int
    before: tuple[tuple[str, str], ...]
    question: str
    options: tuple[str, ...]
    right: int
    relevance: Tensor | None


def ndcg(order: Tensor, relevance: Tensor) -> float:
    """Normalised discounted cumulative gain over as many places as there are relevant answers (VisDial challenge).

    Args:
        order: (options,) places of the options, the best first.
        relevance: (options,).

    Raises:
        ValueError: nothing is relevant.
    """
    count = int((relevance > 0).sum())
    if not count:
        raise ValueError("ndcg: no option is relevant")
    weights = 1 / torch.arange(2, count + 2, dtype=torch.float64).log2()
    gain = (relevance.double()[order[:count]] * weights).sum()
    best = (relevance.double().sort(descending=True).values[:count] * weights).sum()
    return float(gain / best)


def dialogue_rounds(dialogues: Mapping[str, Any], dense: Sequence[Mapping[str, Any]] | None) -> Iterator[Round]:
    """The rounds of VisDial 1.0's file; with `dense` those only that people judged.

    Args:
        dialogues: `data` with `questions`, `answers` and `dialogs`.
        dense: `image_id`, `round_id` (from 1) and `gt_relevance` (or `relevance`) of each judged round.
    """
    data = dialogues["data"]
    questions, answers = data["questions"], data["answers"]
    judged = {(row["image_id"], row["round_id"] - 1): row for row in dense or ()}
    for dialogue in data["dialogs"]:
        told: list[tuple[str, str]] = []
        for number, row in enumerate(dialogue["dialog"]):
            known = judged.get((dialogue["image_id"], number))
            question = questions[row["question"]]
            if (dense is None or known is not None) and "answer_options" in row:
                options = tuple(answers[one] for one in row["answer_options"])
                relevance = None if known is None else torch.tensor(known.get("gt_relevance", known.get("relevance")))
                yield Round(dialogue["image_id"], tuple(told), question, options, int(row["gt_index"]), relevance)
            if "answer" in row:
                told.append((question, answers[row["answer"]]))


@EVALUATORS.register_module(name="dialogue_ranking")
class DialogueRanking:
    """Rank the possible answers of VisDial 1.0 (arXiv 1611.08669), validation.

    An answer's score is the sum of its tokens' losses over the number of tokens of prompt and answer less one, as Emu
    was measured: long answers and long dialogues weigh differently than by a plain mean. Nothing that ends an answer is
    scored.

    Args:
        root: the benchmark's folder.
        file: dialogues inside (`visdial_1.0_val.json`).
        images: pattern of a picture's path inside, with `{image_id}`.
        dense: judgements inside (`visdial_1.0_val_dense_annotations.json`); only rounds with these are then ranked,
            and NDCG is measured. None ranks all.
        begin: special tokens between the picture and the first question, as its model was asked.
        template: how the processor writes documents down; None for the model's own.
        first: only so many rounds; None for all.
    """

    name = "visdial"

    def __init__(
        self,
        root: str | None,
        file: str,
        images: str,
        dense: str | None = None,
        begin: Sequence[str] = (),
        template: str | None = None,
        first: int | None = None,
    ) -> None:
        self.root, self.file, self.images, self.dense = root, file, images, dense
        self.begin, self.template, self.first = tuple(begin), template, first

    def rounds(self) -> list[Round]:
        """What is ranked.

        Raises:
            AbsentDataError, NoRootError: no file, or no place where it could be.
            ValueError: a broken file.
        """
        path = below(self.root, self.file, "dialogue_ranking.file")
        dense = None if self.dense is None else json_at(below(self.root, self.dense, "dialogue_ranking.dense"))
        with reading(path, "file of dialogues in VisDial's layout"):
            return list(dialogue_rounds(json_at(path), dense))[: self.first]

    def document(self, one: Round) -> Document:
        """The dialogue up to a question.

        Raises:
            UnusableError: the picture is missing or broken.
        """
        path = Path(str(self.root)).expanduser() / self.images.format(image_id=one.image)
        segments: list[Segment] = [Image(load(open_picture(path, str(path)), str(path)))]
        segments += [Text(token, role="token") for token in self.begin]
        lead = ": " if self.begin else ""
        for question, said in one.before:
            segments += [Text(f"{lead}{question}?", role="user"), Text(f"{said}.", role="assistant")]
            lead = ""
        return Document([*segments, Text(f"{lead}{one.question}?", role="user")], {"key": str(one.image)})

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Rank, and compare with what people said.

        Raises:
            TypeError: a model that does not write.
            ValueError: no round.
        """
        del processor, device  # the writer finds both at the model
        rounds = self.rounds()
        if not rounds:
            raise ValueError(f"dialogue_ranking.file: {self.file} has no round with options")
        places, gains = [], []
        with written_as(model, self.template), evaluating(model) as where, Counter("rounds", len(rounds)) as counter:
            writer = writer_of(model, "dialogue_ranking")
            for one in rounds:
                order = (-option_scores(writer, self.document(one), one.options, where)).argsort(stable=True)
                places.append(int((order == one.right).nonzero()))
                if one.relevance is not None and bool((one.relevance > 0).any()):
                    gains.append(ndcg(order, one.relevance))
                counter.advance(1)
        return self._result(torch.tensor(places), gains)

    def _result(self, places: Tensor, gains: Sequence[float]) -> Result:
        metrics = {**recall_at(places, PLACES), "mrr": (1 / (places.double() + 1)).mean().item()}
        metrics["mean_rank"] = rank_summary(places)["mean_rank"]
        if gains:
            metrics["ndcg"] = mean(gains)
        table = Table("the true answer among all", ("rounds", *metrics), [(len(places), *metrics.values())])
        details = {"rounds": len(places), "judged": len(gains), "begin": list(self.begin), "template": self.template}
        return Result(self.name, metrics, [table], {}, details, ("ndcg", "mrr") if gains else ("mrr", "R@1"))


def option_scores(writer: Writer, document: Document, options: Sequence[str], device: torch.device) -> Tensor:
    """Minus the published loss of each option behind a dialogue, (options,).

    Args:
        writer: of the model.
        document: the dialogue up to the question.
        options: possible answers.
        device: where the model is.
    """
    prompt = writer.prompts([document], False, device)
    question = next((one.text for one in reversed(document.segments) if isinstance(one, Text)), "")
    rows = [writer.continuation(question, option, end=False) for option in options]
    found = likelihoods(writer.model.decoder, prompt, rows).scores
    lengths = torch.tensor([len(row) for row in rows])
    return found / (int(prompt.lengths[0]) + lengths - 1)
