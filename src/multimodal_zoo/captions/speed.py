"""How fast the workers of a folder were, from the seconds that they noted for each unit."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from multimodal_zoo.captions.job import WORK
from multimodal_zoo.captions.stages import STAGES
from multimodal_zoo.files import read_record


def speed_of(folder: str | Path) -> dict[str, Any]:
    """Speed over all runs that wrote into a folder.

    Args:
        folder: of fused captions.

    Returns:
        `rows`; `worker_seconds`, the sum over workers; `rows_per_worker_second`; `stages`: for each stage `seconds`,
        its `share` of all and `rows_per_second` of a worker that did nothing else. Zeros where nothing was noted.
    """
    rows, seconds = 0, Counter(dict.fromkeys(STAGES, 0.0))
    notes = Path(folder) / WORK / "seconds"
    for entry in os.scandir(notes) if notes.is_dir() else ():
        if not entry.name.startswith("."):
            note = read_record(Path(entry.path))
            rows += note["rows"]
            seconds.update(note["seconds"])
    whole = seconds.total()
    stages = {
        stage: {
            "seconds": round(seconds[stage], 3),
            "share": round(seconds[stage] / whole, 4) if whole else 0.0,
            "rows_per_second": round(rows / seconds[stage], 2) if seconds[stage] else 0.0,
        }
        for stage in STAGES
    }
    rate = round(rows / whole, 4) if whole else 0.0
    return {"rows": rows, "worker_seconds": round(whole, 3), "rows_per_worker_second": rate, "stages": stages}
