"""`settings.json`: what the answers or drawings of a folder were made with, so that no later run mixes its own in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.files import read_record, write_text

FILE = "settings.json"


def settle(folder: Path, wanted: Mapping[str, Any], what: str, key: str) -> None:
    """Note the settings, or compare with what an earlier run noted.

    Args:
        folder: of the answers or drawings.
        wanted: the settings, as JSON holds them.
        what: the folder holds, for the error.
        key: of the configuration that names the folder.

    Raises:
        ValueError: the folder is of another model, or of other settings; or its note is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        write_text(file, json.dumps(dict(wanted), indent=1, ensure_ascii=False) + "\n")
        return
    plain = json.loads(json.dumps(dict(wanted)))
    there = read_record(file, f"note of what {what} were made with", f"{key}: give another folder, or delete it")
    for name in {**plain, **there}:
        if there.get(name) != plain.get(name):
            raise ValueError(
                f"{key}: {folder} holds {what} of another {name} ({there.get(name)!r}, now {plain.get(name)!r}); give "
                "another folder, or delete it"
            )
