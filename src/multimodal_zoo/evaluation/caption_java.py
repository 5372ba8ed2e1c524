"""Caption scores that are Java programs: METEOR and SPICE, where Java and their files are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from multimodal_zoo.evaluation.caption_metrics import Figures, Truths, check, toolkit_missing

#: Name of a score -> files that it needs inside pycocoevalcap, as patterns.
FILES = {
    "METEOR": ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"),
    "SPICE": ("spice/spice-1.0.jar", "spice/lib/stanford-corenlp-3.6.0*.jar"),
}


def why_not(name: str) -> str | None:
    """What a score lacks on this machine; None if nothing.

    Raises:
        ValueError: no such score.
    """
    if name not in FILES:
        raise ValueError(f"caption_score.also has {name!r}; expected {', '.join(FILES)}")
    if shutil.which("java") is None:
        return "no Java on the PATH"
    found = find_spec("pycocoevalcap")
    places = [] if found is None else [Path(one) for one in found.submodule_search_locations or ()]
    if not places:
        return "no pycocoevalcap: pip install 'multimodal_zoo[eval]'"
    for pattern in FILES[name]:
        if not any(any(place.glob(pattern)) for place in places):
            return f"pycocoevalcap lacks {pattern}" + (
                "; its spice/get_stanford_models.py fetches it" if name == "SPICE" else ""
            )
    return None


def meteor(truths: Truths, said: Mapping[str, str]) -> Figures:
    """METEOR 1.5 (Denkowski and Lavie, 2014), from 0 to 1.

    Args:
        truths: true captions by picture, in words.
        said: one caption for each of the same pictures.

    Raises:
        ValueError: see `caption_metrics.check`.
        FileNotFoundError: what `why_not` says.
    """
    check(truths, said)
    _require("METEOR")
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ModuleNotFoundError as error:
        raise toolkit_missing(error) from None
    program = Meteor()
    try:
        whole, each = program.compute_score(_listed(truths), {key: [said[key]] for key in truths})
    finally:
        program.meteor_p.kill()
        program.meteor_p.wait()
    return Figures(float(whole), [float(one) for one in each])


def spice(truths: Truths, said: Mapping[str, str]) -> Figures:
    """SPICE 1.0 (arXiv 1607.08822): agreement of scene graphs, from 0 to 1.

    Args:
        truths: true captions by picture, in words.
        said: one caption for each of the same pictures.

    Raises:
        ValueError: see `caption_metrics.check`.
        FileNotFoundError: what `why_not` says.
    """
    check(truths, said)
    _require("SPICE")
    try:
        from pycocoevalcap.spice.spice import Spice
    except ModuleNotFoundError as error:
        raise toolkit_missing(error) from None
    whole, each = Spice().compute_score(_listed(truths), {key: [said[key]] for key in truths})
    order = {key: place for place, key in enumerate(sorted(truths))}
    values = [float(one["All"]["f"]) for one in each]
    return Figures(float(whole), [values[order[key]] for key in truths])


#: Name of a score -> what computes it.
PROGRAMS: dict[str, Callable[[Truths, Mapping[str, str]], Figures]] = {"METEOR": meteor, "SPICE": spice}


def _require(name: str) -> None:
    if problem := why_not(name):
        raise FileNotFoundError(f"{name} is a Java program and cannot run: {problem}")


def _listed(truths: Truths) -> dict[str, Sequence[str]]:
    return {key: list(texts) for key, texts in truths.items()}
