"""Examples in front of a question: which ones, and how they and the question become one document."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.evaluation.picture_features import PictureFeatures
from multimodal_zoo.evaluation.samples import describe
from multimodal_zoo.evaluation.workspace import Workspace
from multimodal_zoo.registry import EVALUATORS

#: Tries to draw an example that is not the question itself.
TRIES = 1000


class Shots(Protocol):
    """Examples for questions. What a question gets does not depend on the questions beside it.

    Attributes:
        count: examples of each question.
        name: how they are chosen, for reports.
        pictures: whether examples keep their pictures.
    """

    count: int
    name: str
    pictures: bool

    def taking(self, count: int) -> Shots:
        """The same with another number of examples; fewer are the first of more."""
        ...

    def ready(self, model: nn.Module, device: torch.device) -> None:
        """Whatever has to be computed before `chosen`."""
        ...

    def chosen(self, questions: Sequence[Document]) -> list[list[Document]]:
        """The examples of each question, in the order in which they are shown."""
        ...


def in_context(examples: Sequence[Document], question: Document, pictures: bool = True) -> Document:
    """Examples and a question as one document.

    Args:
        examples: with their answers.
        question: what is asked.
        pictures: whether the examples keep their pictures; without, they only show how answers look.
    """
    segments: list[Segment] = []
    for example in examples:
        segments += [one for one in example.segments if pictures or isinstance(one, Text)]
    return Document([*segments, *question.segments], question.meta)


def check_pool(pool: Any, count: int, what: str) -> None:
    """Refuse to choose more examples than there are.

    Raises:
        ValueError: with both numbers.
    """
    if count < 0 or count > len(pool):
        raise ValueError(f"{what}.count is {count}; expected 0 to {len(pool)}, the examples of {describe(pool)}")


def apart(pool: Any, number: int, question: Document, by: Sequence[str]) -> bool:
    """Whether an example has none of some metadata in common with a question."""
    facts = getattr(pool, "facts", None)
    meta = pool[number].meta if facts is None else facts(number)
    return all(question.meta.get(key) is None or meta.get(key) != question.meta[key] for key in by)


@EVALUATORS.register_module(name="random_shots")
class RandomShots:
    """Examples drawn without replacement, for each question by its key, or the same ones for all.

    Args:
        dataset: documents with numbers: a picture, perhaps a question, and an answer as the last text.
        count: examples of each question.
        seed: another seed draws others.
        same: whether all questions get the same ones, which are then read once.
        pictures: whether examples keep their pictures; two without are the usual prompt of "zero-shot" figures
            (Flamingo, arXiv 2204.14198, section 3.4).
        apart: metadata in which a question's examples must differ from it.

    Raises:
        ValueError: more examples than there are.
    """

    def __init__(
        self,
        dataset: Any,
        count: int,
        seed: int = 0,
        same: bool = False,
        pictures: bool = True,
        apart: Sequence[str] = ("key",),
    ) -> None:
        check_pool(dataset, count, "random_shots")
        self.dataset, self.count, self.seed, self.same = dataset, count, seed, same
        self.pictures, self.apart = pictures, tuple(apart)
        self.name = f"random, seed {seed}" + (", the same for all" if same else "")
        if not pictures:
            self.name += ", without pictures"

    def taking(self, count: int) -> RandomShots:
        """See `Shots`."""
        check_pool(self.dataset, count, "random_shots")
        other = copy.copy(self)
        other.count = count
        return other

    def ready(self, model: nn.Module, device: torch.device) -> None:
        """There is nothing to compute."""
        del model, device

    def chosen(self, questions: Sequence[Document]) -> list[list[Document]]:
        """See `Shots`.

        Raises:
            ValueError: hardly any example differs from a question as `apart` wants.
        """
        return [[self.dataset[number] for number in self._numbers(one)] for one in questions]

    def _numbers(self, question: Document) -> list[int]:
        found: list[int] = []
        draws = self._draws(question)
        for _ in range(TRIES + 50 * self.count):
            if len(found) == self.count:
                return found
            number = next(draws)
            if number not in found and apart(self.dataset, number, question, self.apart):
                found.append(number)
        if len(found) == self.count:
            return found
        raise ValueError(
            f"random_shots: of {len(self.dataset)} examples hardly any differs from question {question.key!r} in "
            f"{', '.join(self.apart)}; give other examples, or random_shots.apart"
        )

    def _draws(self, question: Document) -> Iterator[int]:
        random = Random(f"{self.seed}" if self.same else f"{self.seed}:{question.key}")
        while True:
            yield random.randrange(len(self.dataset))


@EVALUATORS.register_module(name="rices_shots")
class RicesShots:
    """The examples whose pictures are most like the question's, the likest one next to it (RICES, arXiv 2109.05014).

    Args:
        dataset: as for `random_shots`.
        count: examples of each question.
        features: what pictures are compared by: `own_features`, `dual_encoder_features`, `transformers_features`.
        apart: metadata in which a question's examples must differ from it.

    Raises:
        ValueError: more examples than there are.
    """

    pictures = True

    def __init__(self, dataset: Any, count: int, features: PictureFeatures, apart: Sequence[str] = ("key",)) -> None:
        check_pool(dataset, count, "rices_shots")
        self.dataset, self.count, self.features, self.apart = dataset, count, features, tuple(apart)
        self.name = f"most similar pictures by {features.name}"
        self._known: dict[str, Any] = {}  # shared by copies with another count

    def taking(self, count: int) -> RicesShots:
        """See `Shots`; pictures are not encoded again."""
        check_pool(self.dataset, count, "rices_shots")
        other = copy.copy(self)
        other.count = count
        return other

    def share(self, workspace: Workspace) -> None:
        """Keep the vectors in the evaluated model's folder, so that an interrupted run finds them again."""
        self._known["workspace"] = workspace

    def ready(self, model: nn.Module, device: torch.device) -> None:
        """Encode the examples' pictures, each once for a model."""
        if self._known.get("model") is not model:
            self._known.update(model=model, device=device)
            self._known["vectors"] = self._vectors(model, device)

    def _vectors(self, model: nn.Module, device: torch.device) -> Tensor:
        """One for each example; those of one picture (`image` in the metadata) are computed once."""
        facts = getattr(self.dataset, "facts", None)
        metas = ({} if facts is None else facts(number) for number in range(len(self.dataset)))
        names = [str(meta.get("image", f"{number} {meta.get('key', '')}")) for number, meta in enumerate(metas)]
        first = {name: number for number, name in reversed(list(enumerate(names)))}
        order = list(dict.fromkeys(names))

        def compute(missing: list[str]) -> Tensor:
            """Vectors of pictures by name."""
            return self.features.vectors(model, (self.dataset[first[name]].image for name in missing), device)

        workspace: Workspace = self._known.get("workspace") or Workspace(None, "")
        decided_by = [self.features.name, self.features.mark(device), describe(self.dataset)]
        found = workspace.class_vectors(order, decided_by, compute)
        place = {name: number for number, name in enumerate(order)}
        return found[[place[name] for name in names]]

    def chosen(self, questions: Sequence[Document]) -> list[list[Document]]:
        """See `Shots`.

        Raises:
            RuntimeError: before `ready`.
            ValueError: too few examples that differ from a question as `apart` wants.
        """
        if not self.count:
            return [[] for _ in questions]
        if "vectors" not in self._known:
            raise RuntimeError("rices_shots: call ready(model, device) first")
        images = [one.image for one in questions]
        vectors = self.features.vectors(self._known["model"], images, self._known["device"])
        orders = (vectors @ self._known["vectors"].T).sort(dim=1, descending=True, stable=True).indices
        return [self._likest(order, one) for order, one in zip(orders, questions, strict=True)]

    def _likest(self, order: Tensor, question: Document) -> list[Document]:
        found: list[int] = []
        for number in order.tolist():
            if apart(self.dataset, number, question, self.apart):
                found.append(number)
            if len(found) == self.count:
                return [self.dataset[one] for one in reversed(found)]
        raise ValueError(
            f"rices_shots: {len(found)} examples differ from question {question.key!r} in {', '.join(self.apart)}, "
            f"{self.count} are asked for"
        )


@EVALUATORS.register_module(name="as_examples")
class AsExamples:
    """Pairs of a picture and a text as examples of a chat: the text becomes the answer to a question.

    Args:
        dataset: documents with numbers, of one picture and one text.
        question: what is asked; empty where a model simply goes on behind the picture.
        ending: put behind every text, where a model that simply goes on needs something between examples.
    """

    def __init__(self, dataset: Any, question: str = "", ending: str = "") -> None:
        self.dataset, self.question, self.ending = dataset, question, ending
        self.title = describe(dataset)
        self.facts = getattr(dataset, "facts", lambda number: dataset[number].meta)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Document:
        document = self.dataset[number]
        if not self.question:
            return Document([Image(document.image), Text(document.text + self.ending)], document.meta)
        asked = [Text(self.question, role="user"), Text(document.text + self.ending, role="assistant")]
        return Document([Image(document.image), *asked], document.meta)
