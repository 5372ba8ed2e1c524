"""Prompt templates of published evaluations, by name."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_zoo.catalogue import require
from multimodal_zoo.data.prompts import IMAGENET, packaged_prompts

#: The seven templates that OpenAI's notebook found to be the best subset of its 80.
SEVEN = (
    "itap of a {c}.",
    "a bad photo of the {c}.",
    "a origami {c}.",
    "a photo of the large {c}.",
    "a {c} in a video game.",
    "art of the {c}.",
    "a photo of the small {c}.",
)
#: Lists of CLIP-benchmark's code (commit 5d99a85 of Sense-GVT/DeCLIP) beside its 80, under its own names; the first of
#: the eight has no full stop there.
LISTS: dict[str, tuple[str, ...]] = {
    "simple": ("a photo of a {c}.",),
    "prompt6": (
        "a photo of a {c}.",
        "a photo of a big {c}.",
        "a photo of a small {c}.",
        "a {c} on the photo.",
        "a big {c} on the photo.",
        "a small {c} on the photo.",
    ),
    "prompt8": ("a photo of a {c}", *SEVEN),
}
#: OpenAI's 80 templates for ImageNet, which a package keeps.
EIGHTY = "prompt80"


def prompt_list(name: str) -> tuple[str, ...]:
    """Sentences with `{c}` where the class name goes.

    Args:
        name: `simple`, `prompt6`, `prompt8` or `prompt80`.

    Raises:
        KeyError: an unknown name, with the nearest.
        ImportError: the package that keeps the 80 is missing.
    """
    require(name, [*LISTS, EIGHTY], "list of prompts", "templates")
    return packaged_prompts(IMAGENET).templates if name == EIGHTY else LISTS[name]


def listed_lines(text: str, place: str) -> list[str]:
    """The lines of `classnames.txt` or of a file of templates; blank ones behind the last are no lines.

    Raises:
        ValueError: a blank line; left out, it would shift the number of every later class.
    """
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if not all(lines):
        raise ValueError(f"{place}: line {lines.index('') + 1} is empty")
    return lines


def fill(templates: Sequence[str], name: str) -> list[str]:
    """The prompts of one class; its name is put in as it is, at `{c}` or `{}`."""
    return [template.replace("{c}", name).replace("{}", name) for template in templates]
