"""Judging answers: filters in order, each counted by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.rows import FAILED, FUSED, REJECTED, CaptionRow

#: What an objection of a filter does: the row is rejected; it is asked again first; it is kept, with a flag.
Action = Literal["reject", "retry", "mark"]
ACTIONS: tuple[Action, ...] = ("reject", "retry", "mark")


class Filter(Protocol):
    """One idea of what is wrong with an answer.

    Attributes:
        action: what its objection does; one of `ACTIONS`.
    """

    action: Action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """What is wrong, in a few words; None if the answer passes."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What the filters say of one answer.

    Attributes:
        status: one of `rows.STATUSES`.
        reason: name of the first filter that refuses the answer, or the engine's error; empty for a fused row.
        flags: names of all filters that object, those that only mark among them.
        again: whether another answer may do better: all that refuse this one have the action "retry".
        objections: what each of `flags` says, in a few words.
    """

    status: str = FUSED
    reason: str = ""
    flags: tuple[str, ...] = ()
    again: bool = False
    objections: tuple[str, ...] = ()


_PASSED = Verdict()


class Checks:
    """All filters of a run.

    A blank answer has one flag, of the first filter that objects: what is not there is not too short as well.

    Args:
        filters: name -> filter, in the order in which they look; None takes a name out of a list that was inherited.

    Raises:
        ValueError: a filter's action is none of `ACTIONS`.
    """

    def __init__(self, filters: Mapping[str, Filter | None]) -> None:
        self.filters: dict[str, Filter] = {name: found for name, found in filters.items() if found is not None}
        for name, found in self.filters.items():
            if found.action not in ACTIONS:
                raise ValueError(f"fusion_filters.{name}.action is {found.action!r}; it can be {', '.join(ACTIONS)}")

    def judge(self, row: CaptionRow, answer: Answer) -> Verdict:
        """The verdict on one answer to one row."""
        if answer.error is not None:
            return Verdict(FAILED, answer.error, again=True)
        blank = not answer.text.strip()
        objections: dict[str, str] = {}
        for name, found in self.filters.items():
            objection = found(row, answer)
            if objection is not None:
                objections[name] = objection
                if blank:
                    break
        if not objections:
            return _PASSED
        refusing = [name for name in objections if self.filters[name].action != "mark"]
        return Verdict(
            status=REJECTED if refusing else FUSED,
            reason=refusing[0] if refusing else "",
            flags=tuple(objections),
            again=bool(refusing) and all(self.filters[name].action == "retry" for name in refusing),
            objections=tuple(objections.values()),
        )
