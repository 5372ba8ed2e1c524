"""What it costs to start: `import multimodal_zoo` and `mmzoo --help`, beside the imports of open_clip and timm."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _report import record

HELP = str(Path(sys.executable).parent / "mmzoo")


def measure(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch_free = "import sys, multimodal_zoo; assert 'torch' not in sys.modules, 'torch was imported'"
    commands = {
        "python alone": [sys.executable, "-c", ""],
        "import multimodal_zoo": [sys.executable, "-c", torch_free],
        "mmzoo --help": [HELP, "--help"],
        "mmzoo list": [HELP, "list"],
        "import torch": [sys.executable, "-c", "import torch"],
        "import timm": [sys.executable, "-c", "import timm"],
        "import open_clip": [sys.executable, "-c", "import open_clip"],
    }
    for command in commands.values():
        measure(command)  # fills the disk cache
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(options.repeats):
        for name, command in commands.items():
            times[name].append(measure(command))
    wall = {name: statistics.median(w for w, _ in values) for name, values in times.items()}
    processor = {name: statistics.median(p for _, p in values) for name, values in times.items()}
    own = processor["import multimodal_zoo"]
    rows = [
        {
            "start": name,
            "seconds": wall[name],
            "processor seconds": processor[name],
            "times import multimodal_zoo": processor[name] / own,
        }
        for name in commands
    ]
    record("import_times", rows, "python benchmarks/import_times.py")


if __name__ == "__main__":
    main()
