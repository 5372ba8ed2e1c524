"""Caption scores that are Java programs: METEOR and SPICE, where Java and their files are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_zoo.evaluation.caption_metrics import Figures, Truths, check
from multimodal_zoo.packages import needed


class Program(NamedTuple):
    """One of them, in pycocoevalcap.

    Attributes:
        module: where its class is, below the package.
        kind: name of the class.
        files: what it needs inside the package, as patterns.
        value: the score in what it says of one picture.
    """

    module: str
    kind: str
    files: tuple[str, ...]
    value: Callable[[Any], float]


#: METEOR 1.5 (Denkowski and Lavie, 2014) and SPICE 1.0 (agreement of scene graphs, arXiv 1607.08822), both from 0 to 1.
PROGRAMS = {
    "METEOR": Program("meteor.meteor", "Meteor", ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"), float),
    "SPICE": Program(
        "spice.spice",
        "Spice",
        ("spice/spice-1.0.jar", "spice/lib/stanford-corenlp-3.6.0*.jar"),
        lambda said: float(said["All"]["f"]),
    ),
}


def why_not(name: str) -> str | None:
    """What a score lacks on this machine; None if nothing.

    Raises:
        ValueError: no such score.
    """
    if name not in PROGRAMS:
        raise ValueError(f"caption_score.also has {name!r}; expected {', '.join(PROGRAMS)}")
    if shutil.which("java") is None:
        return "no Java on the PATH"
    found = find_spec("pycocoevalcap")
    places = [] if found is None else [Path(one) for one in found.submodule_search_locations or ()]
    if not places:
        return "no pycocoevalcap: pip install 'multimodal_zoo[eval]'"
    for pattern in PROGRAMS[name].files:
        if not any(any(place.glob(pattern)) for place in places):
            return f"pycocoevalcap lacks {pattern}" + (
                "; its spice/get_stanford_models.py fetches it" if name == "SPICE" else ""
            )
    return None


def java_score(name: str, truths: Truths, said: Mapping[str, str]) -> Figures:
    """METEOR or SPICE of captions.

    Args:
        name: one of `PROGRAMS`.
        truths: true captions by picture, in words.
        said: one caption for each of the same pictures.

    Raises:
        ValueError: see `caption_metrics.check`; or no such score.
        FileNotFoundError: what `why_not` says.
    """
    check(truths, said)
    if problem := why_not(name):
        raise FileNotFoundError(f"{name} is a Java program and cannot run: {problem}")
    asked = PROGRAMS[name]
    module = needed(f"pycocoevalcap.{asked.module}", name, "eval")
    program, order = getattr(module, asked.kind)(), sorted(truths)  # in which SPICE answers, whatever it is given
    try:
        whole, each = program.compute_score(
            {key: list(truths[key]) for key in order}, {key: [said[key]] for key in order}
        )
    finally:
        _end(program)
    values = dict(zip(order, map(asked.value, each), strict=True))
    return Figures(float(whole), [values[key] for key in truths])


def _end(program: Any) -> None:
    """End the process of METEOR, which stays otherwise; it waits for its own lock for ever where it broke off."""
    process, lock = getattr(program, "meteor_p", None), getattr(program, "lock", None)
    if process is not None:
        process.kill()
        process.wait()
    if lock is not None and lock.locked():
        lock.release()
