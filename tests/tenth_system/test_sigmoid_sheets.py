"""The golden cases of the tenth system, and its day's end: trained, loaded, evaluated, swapped, by its names alone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import multimodal_zoo as zoo
from multimodal_zoo import cli

PROJECT = Path(__file__).parent
PAGE = (PROJECT.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")


def test_the_tower_is_timms_with_the_same_weights() -> None:
    from timm.models.convmixer import ConvMixer as Published

    theirs = Published(dim=16, depth=2, kernel_size=5, patch_size=4, num_classes=0).eval()
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.1)
    part = {"type": "conv_mixer", "image_size": 32, "width": 16, "depth": 2, "kernel_size": 5, "patch_size": 4}
    ours = zoo.build(part).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 24)
    with torch.inference_mode():
        found, expected = ours(images), theirs(images)
    torch.testing.assert_close(found.pooled, expected, rtol=1e-5, atol=1e-5)
    assert found.grid == (8, 6)


def test_the_loss_and_its_gradients_are_open_clips() -> None:
    from open_clip.loss import SigLipLoss
    from sigmoid_sheets.sigmoid_loss import sigmoid_loss

    draws = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    image, text = (normalize(rows, dim=1).requires_grad_() for rows in draws)
    scale, bias = torch.tensor(12.0, requires_grad=True), torch.tensor(-9.0, requires_grad=True)
    inputs = [image, text, scale, bias]
    ours, theirs = sigmoid_loss(*inputs), SigLipLoss()(*inputs)
    torch.testing.assert_close(ours, theirs)
    for found, expected in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mmzoo train sheets/shapes` leaves."""
    from sigmoid_sheets.shapes import draw

    place = tmp_path_factory.mktemp("day")
    draw(place / "shapes")
    words = [f"data.train.folder={place / 'shapes'}", f"run.dir={place / 'run'}", "threads=1"]
    assert cli.main(["train", "sheets/shapes", *words]) == 0
    return place / "run"


def test_the_recipe_learns_combinations_that_it_never_saw(run: Path) -> None:
    found = json.loads((run / "evaluation" / "unseen.json").read_text())["metrics"]
    assert found["R@1"] > 0.5  # chance is 1/12
    assert (run / "report.html").is_file()


def test_saved_weights_load_and_are_evaluated_by_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = zoo.from_pretrained(run)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == zoo.create("sigmoid_tiny", device="meta").card["parameters"]
    folder = run.parent / "shapes"
    words = ["benchmark=shapes", f"benchmark.unseen.dataset.folder={folder}", f"run.dir={run.parent / 'evaluations'}"]
    assert cli.main(["eval", str(run), *words]) == 0
    again = next((run.parent / "evaluations").rglob("unseen.json"))
    trained = json.loads((run / "evaluation" / "unseen.json").read_text())["metrics"]
    assert json.loads(again.read_text())["metrics"] == pytest.approx(trained)


def test_names_are_listed_and_parts_fit_the_other_systems(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "sigmoid*"]) == 0
    assert "sigmoid_tiny" in capsys.readouterr().out
    assert "sheets/shapes" in zoo.list_recipes()
    assert zoo.describe("sigmoid_tiny").facts["system"] == "SigLIP"
    swapped = zoo.create("clip_tiny", overrides=["encoder@model.image=conv_mixer_tiny"])
    assert swapped.encode_image(torch.zeros(1, 3, 32, 32)).shape == (1, 256)
    with pytest.raises(KeyError, match=r"no option named 'sigmoid_tinny'; closest: sigmoid_tiny"):
        zoo.compose("sheets/shapes", ["model=sigmoid_tinny"])


def test_what_does_not_fit_is_said_before_training(run: Path) -> None:
    from sigmoid_sheets.contact_sheet import ContactSheet
    from sigmoid_sheets.sigmoid_loss import SigmoidPairs

    with pytest.raises(ValueError, match=r"\+head@model\.heads\.logit_bias=logit_bias"):
        SigmoidPairs().check(zoo.create("clip_tiny", device="meta"))
    with pytest.raises(ValueError, match=r"train\.png has 9 cells of 64 pixels, train\.txt 36 lines"):
        ContactSheet(str(run.parent / "shapes"), "train", 64)
    sheet = ContactSheet(str(run.parent / "shapes"), "train", 32)
    sheet.captions[3] = ""
    assert len(list(sheet)) == 35
    assert sheet.skips.counts == {"missing caption": 1}


def test_an_entry_point_that_names_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from multimodal_zoo import catalogue

    lost = EntryPoint("mine", "no_such_package.conf", "multimodal_zoo.conf")
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [lost])
    with pytest.raises(ImportError, match=r"multimodal_zoo\.conf: the entry point mine = no_such_package\.conf"):
        catalogue.packages.__wrapped__("conf")


def test_the_page_shows_the_very_files() -> None:
    shown = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    for name, text in shown.items():
        assert (PROJECT / name).read_text(encoding="utf-8") == text, name
    files = {path.relative_to(PROJECT).as_posix() for path in PROJECT.rglob("*.*") if "__pycache__" not in path.parts}
    files = {name for name in files if name.endswith((".py", ".yaml", ".toml")) and not name.endswith("__init__.py")}
    assert files - set(shown) == {"conftest.py", "test_sigmoid_sheets.py"}
    tests = Path(__file__).read_text(encoding="utf-8")
    parts = re.findall(r"^`test_sigmoid_sheets\.py`, \w+ part:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(parts) == 2
    assert all(part in tests for part in parts)


def test_the_commands_of_the_page_compose() -> None:
    lines = [line for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in text.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("mmzoo")]
    assert {words[0] for words in commands} == {"train", "eval", "list", "describe"}
    for command, subject, *words in commands:
        if command == "train":
            zoo.compose(subject, words)
        elif command == "eval":
            zoo.compose("base/eval", [f"source={subject}", *words])
