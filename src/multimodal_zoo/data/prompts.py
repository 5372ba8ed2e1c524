"""Class names and prompt templates of published zero-shot protocols, read from the packages that keep them.

ImageNet's 1000 names and 80 templates come from open_clip, the subsets of ImageNet-A and -R from timm's class indices,
all else from clip-benchmark. Sets whose names clip-benchmark takes from the data (CIFAR, Food-101, ...) have templates
only: their names lie beside the data.
"""

from __future__ import annotations

import ast
import json
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from multimodal_zoo.catalogue import unknown

IMAGENET = "imagenet1k"
#: Sets with ImageNet's own 1000 classes.
ALL_OF_IMAGENET = (IMAGENET, "imagenetv2", "imagenet_sketch")
#: Sets with a part of them -> timm's file of class numbers.
PARTS_OF_IMAGENET = {"imagenet-a": "imagenet_a_indices.txt", "imagenet-r": "imagenet_r_indices.txt"}
#: Sets that CLIP_benchmark prompts with ImageNet's templates, under names of their own.
PROMPTED_AS_IMAGENET = ("objectnet",)


@dataclass(frozen=True)
class Prompts:
    """What a package knows of one set.

    Attributes:
        names: one per class in the order of the class numbers; empty if the package has none.
        templates: sentences with `{c}` where the name goes; empty if the package has none.
        source: the package.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    source: str


def packaged_prompts(name: str) -> Prompts:
    """Names and templates of a set, as far as a package has them.

    Args:
        name: clip-benchmark's name of the set, e.g. `imagenet-a` or `caltech101`.

    Raises:
        KeyError: a name that no package knows, with the nearest ones.
        ImportError: clip-benchmark is needed and not installed.
    """
    if name in ALL_OF_IMAGENET or name in PARTS_OF_IMAGENET or name in PROMPTED_AS_IMAGENET:
        names, templates = _imagenet()
        if name in PARTS_OF_IMAGENET:
            names = tuple(names[number] for number in subset_numbers(name))
        return Prompts(() if name in PROMPTED_AS_IMAGENET else names, templates, "open_clip")
    all_names, all_templates = _clip_benchmark("classnames"), _clip_benchmark("zeroshot_classification_templates")
    if name not in all_names and name not in all_templates:
        raise unknown(name, known_sets(), "evaluation set", "name")
    names = _voc2007() if name == "voc2007" else tuple(all_names.get(name, ()))
    return Prompts(names, tuple(all_templates.get(name, ())), "clip-benchmark")


def known_sets() -> list[str]:
    """The names that `packaged_prompts` takes."""
    imagenets = {*ALL_OF_IMAGENET, *PARTS_OF_IMAGENET, *PROMPTED_AS_IMAGENET}
    return sorted(imagenets.union(_clip_benchmark("classnames"), _clip_benchmark("zeroshot_classification_templates")))


def subset_numbers(name: str) -> list[int]:
    """ImageNet's class numbers of ImageNet-A or -R, ascending: the order of their class folders."""
    listed = _file("timm", f"data/_info/{PARTS_OF_IMAGENET[name]}", "timm").read_text(encoding="utf-8")
    return sorted(int(line) for line in listed.split())


def difference(beside: Sequence[str], packaged: Sequence[str], what: str) -> str:
    """How the names or templates beside the data differ from a package's, in a line; empty if they do not."""
    if len(beside) != len(packaged):
        return f"{len(beside)} {what} beside the data, {len(packaged)} in the package"
    unlike = [(a, b) for a, b in zip(beside, packaged, strict=True) if a != b]
    if not unlike:
        return ""
    return (
        f"{len(unlike)} of {len(beside)} {what} differ from the package's (first: {unlike[0][0]!r}, {unlike[0][1]!r})"
    )


@cache
def _imagenet() -> tuple[tuple[str, ...], tuple[str, ...]]:
    tables = runpy.run_path(str(_file("open_clip", "zero_shot_metadata.py", "open_clip_torch")))
    templates = tuple(fill("{c}") for fill in tables["OPENAI_IMAGENET_TEMPLATES"])
    return tuple(tables["IMAGENET_CLASSNAMES"]), templates


@cache
def _clip_benchmark(table: str) -> dict[str, Any]:
    path = _file("clip_benchmark", f"datasets/en_{table}.json", "clip-benchmark")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _file(package: str, path: str, distribution: str) -> Path:
    """A file of a package that is not imported: timm and open_clip would load every model of theirs."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"class names and templates of this set come from {distribution}: pip install {distribution}, or put "
            "classnames.txt and zeroshot_classification_templates.txt beside the data"
        )
    return Path(spec.origin).parent / path


def _voc2007() -> tuple[str, ...]:
    """The names that clip-benchmark's loader of VOC2007 assigns to `object_categories`."""
    tree = ast.parse(_file("clip_benchmark", "datasets/voc2007.py", "clip-benchmark").read_text(encoding="utf-8"))
    values = (node.value for node in tree.body if isinstance(node, ast.Assign) and _assigns(node, "object_categories"))
    return tuple(ast.literal_eval(next(values)))


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
