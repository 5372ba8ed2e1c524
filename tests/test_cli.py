"""The command line: speed of imports, errors, completion, composition."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import pytest

from multimodal_zoo import cli
from multimodal_zoo.commands.app import primary_config, split
from multimodal_zoo.commands.complete import candidates, script
from multimodal_zoo.commands.names import MODULES, OPTION_COMMANDS
from multimodal_zoo.config import compose

HEAVY = ("torch", "hydra", "omegaconf", "mmengine", "numpy", "lightning")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_and_help_load_nothing_heavy() -> None:
    report = f"import sys; print([m for m in {HEAVY} if m in sys.modules])"
    assert python(f"import multimodal_zoo; {report}").strip() == "[]"
    assert python(f"from multimodal_zoo import cli; cli.main(['--help']); {report}").strip().endswith("[]")
    assert python(f"from multimodal_zoo import cli; cli.main(['list']); {report}").strip().endswith("[]")


def test_public_names_resolve() -> None:
    import multimodal_zoo as zoo

    for name in dir(zoo):
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = zoo.nonsense


def test_an_unknown_command_names_the_nearest(capsys) -> None:
    assert cli.main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("command", OPTION_COMMANDS)
def test_the_help_of_a_command_explains_each_option(command: str, capsys) -> None:
    kinds = import_module(f"multimodal_zoo.commands.{MODULES.get(command, command)}").OPTIONS
    assert cli.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for heading, options in kinds.items():
        _, found, lines = shown.partition(f"\n{heading}:\n")
        assert found, heading
        for field in fields(options):
            assert re.search(rf"^  {field.name}=\S*  +[\w`].{{8,}}", lines, re.MULTILINE), field.name


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "quickstrat"], "closest: quickstart"),
        (["train", "./absent.yaml"], "no file"),
        (["eval", "clip_vit_b23"], "closest: clip_vit_b32"),
        (["describe", "clip_vit_b23"], "closest: clip_vit_b32"),
        (["eval"], "needs a run folder"),
        (["train", "trainer.max_stepz=5"], "trainer.max_stepz: no key named 'max_stepz'; closest: max_steps"),
        (["train", "model=clip_tinny"], "model: no option named 'clip_tinny'; closest: clip_tiny"),
        (["train", "modle=clip_tiny"], "modle: no key named 'modle'; closest: model"),
        (["plan", "clip_tiny", "json=yes"], "json=yes: expected true or false"),
        (["plan", "clip_tiny", "as_trained=yes"], "as_trained=yes: expected true or false"),
        (["plan", "fuse", "rows=9", "json=yes"], "json=yes: expected true or false"),
        (["dedupe", "photos", "out=a.npz", "distance=few"], "distance=few: expected a whole number"),
        (["detect", "fast_bev_tiny", "b", "c", "d"], "d: one word too many"),
        (["eval", "clip_tiny", "clip_tiny"], "clip_tiny: one word too many; what follows is key=value"),
        (["train", "quickstart", "seed", "1"], "seed: one word too many"),
    ],
)
def test_bad_subjects_get_one_readable_message(arguments, expected, capsys) -> None:
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "key", "said"),
    [
        (["data=folder"], "data.train.table", "the recipe leaves its value to you; add data.train.table=..."),
        (["clip/vit_b32"], "data.train.sources", "the recipe leaves its value to you; add data.train.sources=..."),
        (["model=emu_tiny"], "data.augment[0].size", "it has the value of model.image.image_size, which is not there"),
        (["threads=1000000"], "threads=1000000", "expected 1 to 1024 of the processor"),
    ],
)
def test_a_job_that_lacks_a_value_ends_in_one_message(arguments, key, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        cli.main(["train", *arguments])
    assert capsys.readouterr().err.startswith(f"mmzoo: {key}: {said}")


def test_a_defect_keeps_its_traceback() -> None:
    def broken() -> int:
        return int("not a number")

    from multimodal_zoo.commands.errors import is_ours

    with pytest.raises(ValueError, match="invalid literal") as caught:
        broken()
    assert not is_ours(caught.value)


def test_split_keeps_flags_with_values_together() -> None:
    assert split(["-m", "clip/a", "seed=1,2", "--cfg", "job"]) == ("clip/a", ["-m", "seed=1,2", "--cfg", "job"])
    assert split(["--config-dir", "here", "+x=1"]) == (None, ["--config-dir", "here", "+x=1"])


def test_a_users_own_yaml_is_a_recipe(tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 1\n")
    assert primary_config("train", str(mine)) == (str(tmp_path), "mine", [])


@pytest.mark.parametrize("name", ["a b", "lr=0.1,seed=1", "it's", 'say "so"', "a\\'b\\", "${run.dir}"])
def test_a_source_may_have_any_name(name, tmp_path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    subject, rest = split([str(folder), "weights=null"])
    assert (subject, rest) == (str(folder), ["weights=null"])
    _, _, overrides = primary_config("eval", subject)
    assert compose("base/eval", [*overrides, "benchmark=emoji"]).source == str(folder)


def test_completion_answers_from_file_names() -> None:
    assert "train" in candidates("mmzoo ")
    assert candidates("mmzoo describe clip_vit_l1") == ["clip_vit_l14", "clip_vit_l14_336"]
    assert "quickstart" in candidates("mmzoo train qui")
    assert "model=clip_vit_b16" in candidates("mmzoo train quickstart model=clip")
    assert "encoder@model.image=timm_vit" in candidates("mmzoo train quickstart encoder@model.image=timm")
    assert "seed=" in candidates("mmzoo train quickstart trainer.") or candidates("mmzoo train quickstart trainer.")
    assert candidates("mmzoo convert runs/mine na") == ["naming="]
    assert candidates("mmzoo report runs/mine b") == ["by="]
    assert candidates("mmzoo data s") == ["synth-nuscenes"]
    assert candidates("mmzoo data synth-nuscenes here f") == ["frames="]
    assert candidates("mmzoo plan clip_vit_l14_") == ["clip_vit_l14_336"]
    for shell in ("bash", "zsh", "fish"):
        assert "mmzoo" in script([f"install={shell}"])
    with pytest.raises(ValueError, match="bash, zsh, fish"):
        script(["install=ksh"])


def test_a_shell_without_completion_gets_a_message(capsys) -> None:
    assert cli.main(["-sc", "install=ksh"]) == 1
    assert "install=ksh: completion exists for bash, zsh, fish" in capsys.readouterr().err


def test_an_interrupted_command_ends_without_a_traceback(monkeypatch, capsys) -> None:
    def interrupted(command: str, rest: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["list"]) == 130
    assert capsys.readouterr().err == "mmzoo: interrupted\n"
