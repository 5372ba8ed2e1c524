"""`mmzoo list [pattern]`: variants, recipes and the options of every group, from file names alone."""

from __future__ import annotations

from multimodal_zoo.catalogue import list_group, list_groups, list_models, list_recipes


def main(arguments: list[str]) -> int:
    """Print what matches a shell pattern, or contains a word; exit status 1 when nothing does."""
    pattern = arguments[0] if arguments else "*"
    if not set("*?[") & set(pattern):
        pattern = f"*{pattern}*"
    sections = {"variants": list_models(pattern), "recipes": list_recipes(pattern)}
    sections |= {f"{group}=": list_group(group, pattern) for group in list_groups() if group not in ("model", "base")}
    shown = {title: names for title, names in sections.items() if names}
    if not shown:
        print(f"mmzoo list: nothing matches {pattern!r}; without a pattern everything is listed")
        return 1
    width = max(map(len, shown))
    for title, names in shown.items():
        print(f"{title:<{width}}  {'  '.join(names)}")
    return 0
