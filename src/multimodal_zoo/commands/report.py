"""`mmzoo report RUN [RUN ...] [out=FOLDER] [by=KEY,KEY]`: runs of any kind, over methods and seeds, on one page."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_zoo.commands.options import separate


@dataclass(frozen=True)
class Options:
    """What may stand behind the runs, `key=value`.

    Attributes:
        out: folder of the files.
        by: keys of the configuration that make a method, as in `by=objective,data.train.share`.
        only: names or patterns of evaluations; None for all.
        figures: of the overview, as in `figures=R@1,top1`.
        title: the heading.
        mixed: whether evaluations may stand together that were configured differently.
    """

    out: str = "comparison"
    by: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    figures: tuple[str, ...] = ()
    title: str = "comparison"
    mixed: bool = False


OPTIONS = {"options": Options}


def main(arguments: list[str]) -> int:
    """Print the overview, and write it as Markdown, JSON, HTML and PNG.

    Raises:
        ValueError: no run, an unknown option, or runs that were not measured alike.
        FileNotFoundError, NotADirectoryError: a folder without runs, or a file.
        KeyError: a key, evaluation or figure that no run has.
    """
    from multimodal_zoo.evaluation.comparison import collect
    from multimodal_zoo.evaluation.report import print_table

    places, options = separate(arguments, Options)
    comparison = collect(
        places,
        by=options.by,
        only=options.only,
        figures=options.figures,
        mixed=options.mixed,
        title=options.title,
    )
    page = comparison.save(options.out)
    for table in comparison.printable():
        print_table(table)
    for remark in comparison.remarks:
        print(f"note: {remark}")
    print(f"report: {page}")
    return 0
