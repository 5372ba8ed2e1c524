"""`mmzoo report RUN [RUN ...] [out=FOLDER] [by=KEY,KEY]`: runs of any kind, over methods and seeds, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multimodal_zoo.commands.values import flag, listed

#: Option -> what it says, for error messages.
OPTIONS = {
    "out": "folder of the files, comparison",
    "by": "keys of the configuration that make a method, as in by=objective,data.train.share",
    "only": "names or patterns of evaluations",
    "figures": "figures of the overview, as in figures=R@1,top1",
    "title": "the heading",
    "mixed": "true lets evaluations stand together that were configured differently",
}


def main(arguments: list[str]) -> int:
    """Print the overview, and write it as Markdown, JSON, HTML and PNG.

    Raises:
        ValueError: no run, an unknown option, or runs that were not measured alike.
        FileNotFoundError, NotADirectoryError: a folder without runs, or a file.
        KeyError: a key, evaluation or figure that no run has.
    """
    from multimodal_zoo.evaluation.comparison import collect
    from multimodal_zoo.evaluation.report import print_table

    places, options = parse(arguments)
    comparison = collect(
        places,
        by=listed(options.get("by", "")),
        only=listed(options["only"]) if "only" in options else None,
        figures=listed(options.get("figures", "")),
        mixed=flag("mixed", options.get("mixed", "false")),
        title=options.get("title", "comparison"),
    )
    page = comparison.save(options.get("out", "comparison"))
    for table in comparison.printable():
        print_table(table)
    for remark in comparison.remarks:
        print(f"note: {remark}")
    print(f"report: {page}")
    return 0


def parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate the places of runs from the options; a word with `=` that exists is a place.

    Raises:
        ValueError: an unknown option.
    """
    places, options = [], {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or "/" in key or Path(word).exists():
            places.append(word)
        elif key in OPTIONS:
            options[key] = value
        else:
            known = "".join(f"\n  {name}: {what}" for name, what in OPTIONS.items())
            raise ValueError(f"{word}: no option {key!r} and no such folder; options are{known}")
    return places, options
