"""How a published evaluation asks: words around a question, the beginning of the answer, beams, what of it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from multimodal_zoo.data.documents import Document, Segment, Text
from multimodal_zoo.evaluation.clean_ups import clean_up as cleaner
from multimodal_zoo.evaluation.clean_ups import vizwiz_answer
from multimodal_zoo.evaluation.likelihood import likelihoods
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.speaking import evaluating
from multimodal_zoo.inference.writers import writer_of
from multimodal_zoo.registry import EVALUATORS

#: Where the question goes.
PLACE = "{question}"
#: What may be said to whether an answer is known.
KNOWN = ("yes.", "no.")


@EVALUATORS.register_module(name="asking")
class Asking:
    """A way of asking questions about pictures.

    Args:
        form: words around the question, `{question}` where it goes.
        opening: the beginning of the answer, which the model goes on with; empty for none.
        template: how the processor writes documents down (`emu_templates.TEMPLATES`); None for the model's own.
        clean_up: what of an answer counts: `none` (all), `short_answer` or `caption`.
        beams: arguments of `generation.beams.Beams`; None takes the likeliest token at every step.
        known: words around the question whether its answer is known, to which a plain `no.` makes the answer
            "unanswerable" (VizWiz); empty asks nothing.

    Raises:
        ValueError: a form without a place for the question, or an unknown clean-up.
    """

    def __init__(
        self,
        form: str = PLACE,
        opening: str = "",
        template: str | None = None,
        clean_up: str = "none",
        beams: Mapping[str, Any] | None = None,
        known: str = "",
    ) -> None:
        for name, words in (("form", form), ("known", known)):
            if words and PLACE not in words:
                raise ValueError(f"asking.{name} is {words!r}; the question goes where it has {PLACE}")
        self.form, self.opening, self.template, self.clean_up = form, opening, template, clean_up
        self.beams = None if beams is None else dict(beams)
        self.known = known
        self._clean = cleaner(clean_up)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the answers, for reports and for going on with them."""
        names = ("form", "opening", "template", "clean_up", "beams", "known")
        return {name: getattr(self, name) for name in names}

    def document(self, question: Document) -> Document:
        """A question with the words around it, and the beginning of its answer.

        Args:
            question: its last text is the question; examples with answers may stand in front.
        """
        return self._formed(question, self.form, self.opening)

    def answers(self, model: nn.Module, questions: Sequence[Document], max_new_tokens: int) -> list[str]:
        """What counts of the answers.

        Args:
            model: one that writes, with its processor.
            questions: as for `document`; nothing is around them yet.
            max_new_tokens: most tokens of each answer.

        Raises:
            TypeError: a model that does not write, or whose processor has no templates.
        """
        with written_as(model, self.template):
            said = self._said(model, [self.document(one) for one in questions], max_new_tokens)
            if not self.known:
                return [self._clean(text) for text in said]
            asked = [self._formed(one, self.known, "") for one in questions]
            return [vizwiz_answer(text, is_known(model, one)) for text, one in zip(said, asked, strict=True)]

    def _said(self, model: nn.Module, documents: Sequence[Document], most: int) -> list[str]:
        if self.beams is None:
            return answer(model, documents, max_new_tokens=most, special=False)
        from multimodal_zoo.generation.beams import Beams

        return answer(model, documents, max_new_tokens=most, special=False, beams=Beams(**self.beams))

    @staticmethod
    def _formed(question: Document, form: str, opening: str) -> Document:
        segments: list[Segment] = list(question.segments)
        last = max((n for n, one in enumerate(segments) if isinstance(one, Text)), default=-1)
        asked = segments[last] if last >= 0 else None
        example = last < len(segments) - 1  # a text of no role in front of a picture is what an example says
        if isinstance(asked, Text) and (asked.role == "user" or (asked.role is None and not example)):
            segments[last] = replace(asked, text=form.replace(PLACE, asked.text))
        elif words := form.replace(PLACE, "").strip():
            segments.append(Text(words, role="user"))  # a picture alone
        return Document([*segments, *([Text(opening, role="assistant")] if opening else [])], question.meta)


@contextmanager
def written_as(model: nn.Module, template: str | None) -> Iterator[None]:
    """Inside, the model's processor writes documents in another form.

    Args:
        model: with a processor.
        template: name of a template; None for the processor's own.

    Raises:
        TypeError: a processor without templates.
        KeyError: no such template, with the nearest ones.
    """
    own: Any = getattr(model, "processor", None)
    if template is None:
        yield
        return
    if not hasattr(own, "written_as"):
        raise TypeError(f"asking.template is {template!r}, but the model's processor ({own!r}) has one form only")
    model.processor = own.written_as(template)
    try:
        yield
    finally:
        model.processor = own


def is_known(model: nn.Module, question: Document) -> str:
    """Which of `yes.` and `no.` is the likelier answer, its end counted.

    That is what beams over a tree of the two give, which is how it was published: the sum of the logarithms decides.

    Args:
        model: one that writes.
        question: whether something is known.
    """
    writer = writer_of(model, "asking")
    with evaluating(model) as device:
        prompt = writer.prompts([question], False, device)
        text = next((one.text for one in reversed(question.segments) if isinstance(one, Text)), "")
        ends = [writer.continuation(text, one, end=True) for one in KNOWN]
        return KNOWN[int(likelihoods(writer.model.decoder, prompt, ends).scores.argmax())]
