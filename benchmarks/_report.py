"""How every benchmark measures and records: ratios within one run, the machine and the versions beside them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("multimodal_zoo", "torch", "open_clip_torch", "timm", "transformers", "lightning", "webdataset")

Row = Mapping[str, "str | float | int"]


def use_threads(threads: int) -> None:
    """Give torch `threads` threads."""
    import torch

    torch.set_num_threads(threads)


def seconds() -> float:
    """A clock: processor time of this process with one thread, so that other work does not count; else wall time."""
    import torch

    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def alternate(rivals: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each rival, measured in turn: ours, theirs, ours, theirs ... so that drift hits all alike."""
    for _ in range(warm_up):
        for call in rivals.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats):
        for name, call in rivals.items():
            start = seconds()
            call()
            times[name].append(seconds() - start)
    return times


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median over repeats of theirs / ours: above 1 we are faster."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def _status(key: str) -> int:
    """A line of this process's memory status, in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def peak_mib(call: Callable[[], object]) -> float:
    """Most memory that this process holds during a call, above what it holds before, in MiB (Linux).

    Call it once per process: what an earlier call freed may still count as held.
    """
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM") - before
    del result
    return peak / 1024


def machine() -> dict[str, str]:
    """Processor, accelerator, system and versions; nothing that identifies the machine."""
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}",
    }
    facts["python"] = platform.python_version()
    if "torch" in sys.modules:
        import torch

        facts["torch threads"] = str(torch.get_num_threads())
        if torch.cuda.is_available():
            facts["accelerator"] = torch.cuda.get_device_name()
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[_cell(row.get(key, "")) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *lines]) for i in range(len(columns))]
    ruled = [columns, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in ruled
    )


def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MB of freed memory from now on, for all rivals alike.

    Otherwise it hands back what a layer frees and the next layer pays for fresh pages. Freeing one mapped chunk of just
    under 32 MB is what raises its threshold; nothing happens with other allocators.
    """
    import torch

    torch.zeros(31 * 2**18)


def record(name: str, rows: Sequence[Row], command: str, threads: int = 1, keep: bool = True) -> None:
    """Print a table and keep it as results/<name>.md and results/<name>.json.

    Args:
        name: of the benchmark, its file name without suffix; with several threads `_<threads>_threads` is appended.
        rows: one mapping of column to value for each line; floats are shown with four digits.
        command: what to type at the repository's root to measure again, without `--threads`.
        threads: how many were used.
        keep: False prints only, for a smoke test.
    """
    if threads > 1:
        name, command = f"{name}_{threads}_threads", f"{command} --threads {threads}"
    if not keep:
        print(_table(rows))
        return
    facts = machine()
    date = datetime.now(timezone.utc).date().isoformat()
    about = "\n".join(f"- {key}: {value}" for key, value in {"date": date, **facts}.items())
    table = _table(rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(f"# {name}\n\n`{command}`\n\n{table}\n\n{about}\n")
    content = {"name": name, "command": command, "date": date, "machine": facts, "rows": [dict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(table)
