"""Notebooks run from top to bottom in this environment, and are committed with small outputs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: What a notebook prints at the end of its training, and the least of it.
LEARNT = {
    "chat_without_encoder": (r"names right: (\d+) of", 8),
    "compare_methods": (r"pairs that were learnt: ([\d.]+); chance", 0.6),
    "embed_and_retrieve": (r"training emoji: ([\d.]+); chance", 0.5),
    "generate_with_tokens": (r"drawn as they were: ([\d.]+); by chance", 0.5),
    "detect": (r"objects with a box within 2 m: (\d+) of", 5),
    "fuse_captions": (r"rows with a fused caption by rules: (\d+)", 6),
}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed_and_small(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    outputs = [output for cell in content["cells"] for output in cell.get("outputs", [])]
    assert path.stat().st_size < 400_000
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture is shown"
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A kernel of this environment, whatever kernels the user has registered: importing all anew takes a third."""
    from jupyter_client.manager import start_new_kernel

    folder = tmp_path_factory.mktemp("kernel")
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (place / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "tests", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("MMZOO_RUN", "MMZOO_DETECTOR"):
            patch.delenv(name, raising=False)
        manager, client = start_new_kernel(kernel_name="python3")
    client.stop_channels()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: Path, kernel: Any, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    anew = nbformat.v4.new_code_cell(f"%reset -f\nimport os\nos.chdir({str(tmp_path)!r})\ndel os")
    notebook.cells.insert(0, anew)
    NotebookClient(notebook, km=kernel, timeout=240).execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    pattern, least = LEARNT[path.stem]
    memorised = re.search(pattern, printed)
    assert memorised is not None
    assert float(memorised[1]) > least
