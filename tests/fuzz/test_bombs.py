"""Small files that ask for much memory, or for places outside: a process with a bound on its memory opens them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzz_bombs.py"
#: What is whole and must be read, whatever stands beside it.
READ = {
    "PNG of 1 x 1",
    "PNG of 9,000 x 9,000",
    "merges, gzip of one long line",
    "run folder with aliases",
    "folder with links and a pipe",
    *(f"pairs, tar with a .{suffix} of {size} MiB" for suffix, size in (("json", 200), ("png", 300))),
    *(
        f"pages, codes and clips, tar with a .{suffix} of {size} MiB"
        for suffix, size in (("json", 200), ("0.npy", 300))
    ),
    *(f"{reader}, tar with {what}" for reader in ("pairs", "captions") for what in ("device", "pipe")),
    *(f"{reader}, tar with {what} link" for reader in ("pairs", "captions") for what in ("symbolic", "hard")),
    *(f"captions, tar with {what}" for what in ("absolute path", "path above")),
}


@pytest.mark.slow
@pytest.mark.multiprocess
def test_bombs_are_read_or_refused_in_bounded_memory(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    found = [json.loads(line) for line in made.stdout.splitlines()]
    assert [one for one in found if one["what"] == "finding"] == []
    assert {one["name"] for one in found if one["what"] == "read"} == READ
    assert len(found) > 50
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"warm.png", "warm.jsonl", *map(str, range(len(found)))}  # nothing was unpacked beside the tars
