"""What the documentation names exists: commands, overrides, variants, imports, parts, files and recorded figures."""

from __future__ import annotations

import ast
import copy
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

import multimodal_zoo as zoo
from multimodal_zoo.analysis import Setting
from multimodal_zoo.catalogue import list_group, list_groups
from multimodal_zoo.commands.app import as_text, split, with_named_words, with_questions
from multimodal_zoo.commands.data import OPTIONS as DATA_OPTIONS
from multimodal_zoo.commands.gallery import Options as GalleryOptions
from multimodal_zoo.commands.names import (
    COMMANDS,
    DATA_COMMANDS,
    DEFAULT_RECIPE,
    HYDRA_COMMANDS,
    NAMED_WORDS,
    QUESTION_COMMANDS,
    SUBJECT_KEYS,
    TEXT_KEYS,
)
from multimodal_zoo.commands.options import names, separate
from multimodal_zoo.commands.plan import Options as PlanOptions
from multimodal_zoo.commands.plan_fuse import Options as FusionPlanOptions
from multimodal_zoo.commands.report import Options as ReportOptions
from multimodal_zoo.commands.retrieve import parse as parse_retrieval
from multimodal_zoo.commands.stages import compose_stages
from multimodal_zoo.config import compose_whole
from multimodal_zoo.registry import find
from multimodal_zoo.zoo import declaration

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "docs" / "systems" / "clip.md"
EVA_CLIP = ROOT / "docs" / "systems" / "eva_clip.md"
CLIP_BENCHMARK = ROOT / "docs" / "systems" / "clip_benchmark.md"
EMU3 = ROOT / "docs" / "systems" / "emu3.md"
EVE = ROOT / "docs" / "systems" / "eve.md"
EMU = ROOT / "docs" / "systems" / "emu.md"
FAST_BEV = ROOT / "docs" / "systems" / "fast_bev.md"
CAPSFUSION = ROOT / "docs" / "systems" / "capsfusion.md"
#: What the cards of a page's variants call their system, and the ending of those that the page may leave out.
SYSTEMS = {
    CLIP: ({"CLIP"}, None),
    EVA_CLIP: ({"EVA-CLIP"}, "_tiny"),
    CLIP_BENCHMARK: ({"CLIP-benchmark", "DeCLIP"}, None),
    EMU3: ({"Emu3"}, None),
    EVE: ({"EVE"}, None),
    EMU: ({"Emu", "Emu2"}, None),
    FAST_BEV: ({"Fast-BEV"}, None),
    CAPSFUSION: ({"CapsFusion"}, None),
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Its code and commands are those of a package that only its own tests install (tests/tenth_system).
ELSEWHERE = ROOT / "docs" / "extending.md"
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LAUNCHERS = find_spec("hydra_plugins.hydra_submitit_launcher") if find_spec("hydra_plugins") else None
NAV = re.compile(r":\s*([\w/]+\.md)\s*$", re.MULTILINE)


def fences(language: str) -> Iterator[tuple[str, str]]:
    for page in (page for page in PAGES if page != ELSEWHERE):
        for number, match in enumerate(FENCE.finditer(page.read_text(encoding="utf-8"))):
            if match[2] == language:
                indent = len(match[1])
                yield f"{page.stem}-{number}", "\n".join(line[indent:] for line in match[3].splitlines())


@cache
def commands() -> list[tuple[str, list[str]]]:
    """Where a command stands first, and its words behind `mmzoo`."""
    found = {}
    for name, text in fences("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = [word for word in shlex.split(line, comments=True) if word != "..."]
            while "&&" in words:
                words = words[words.index("&&") + 1 :]
            if "multimodal_zoo" in words and words[0] == "torchrun":
                words = ["mmzoo", *words[words.index("multimodal_zoo") + 1 :]]
            if words[:1] == ["mmzoo"]:
                found.setdefault(tuple(words[1:]), name)
    return [(name, list(words)) for words, name in found.items()]


@cache
def cards() -> dict[str, dict[str, Any]]:
    """The card of each variant."""
    paths = (ROOT / "conf" / "model").glob("*.yaml")
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["card"] for path in paths}


@cache
def own_recipes() -> dict[str, str]:
    """YAML fences that are recipes of their own, by the file name in their first line."""
    texts = [text for _, text in fences("yaml") if "@package _global_" in text]
    return {text.split()[1].removesuffix(".yaml"): text for text in texts}


def overrides_of(words: list[str]) -> list[str]:
    """The overrides among words; of a sweep the first job."""
    chosen = []
    for word in words:
        if word in ("-m", "--cfg", "job"):
            continue
        key, _, value = word.partition("=")
        swept = "-m" in words and "," in value and not value.startswith("[")
        chosen.append(f"{key}={value.split(',')[0]}" if swept else word)
    return chosen


@cache
def composed(recipe: str, groups: tuple[str, ...]) -> DictConfig:
    return zoo.compose(recipe, groups)


def stage(recipe: str, words: list[str], folder: str | None) -> DictConfig:
    """A stage's recipe in place of `config.compose_whole`, once for all commands that change nothing in it."""
    return composed_stage(recipe, tuple(words), folder)


@cache
def composed_stage(recipe: str, words: tuple[str, ...], folder: str | None) -> DictConfig:
    return compose_whole(recipe, words, folder)


def compose(recipe: str, overrides: list[str]) -> DictConfig:
    """As `zoo.compose`, which takes most of this file's time; once for all commands that choose the same groups."""
    parsed = [(word, OverridesParser.create().parse_override(word)) for word in overrides]
    groups = {*list_groups(), "launcher"}
    chosen = tuple(w for w, one in parsed if one.package or one.key_or_group in groups or w.startswith("hydra."))
    config = copy.deepcopy(composed(recipe, chosen))
    ConfigLoaderImpl._apply_overrides_to_config([one for word, one in parsed if word not in chosen], config)
    return config


@pytest.mark.parametrize("words", [pytest.param(w, id=f"{n}: {' '.join(w)}"[:90]) for n, w in commands()])
def test_commands_compose(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0].startswith("-"):
        return
    assert words[0] in COMMANDS
    subject, rest = split(words[1:])
    overrides = overrides_of(rest)
    if any(word.startswith("launcher=") for word in overrides) and LAUNCHERS is None:
        pytest.skip("needs the extra slurm")
    if words[0] == "train":
        name = subject or DEFAULT_RECIPE["train"]
        if name.endswith(".yaml"):
            name = Path(name).stem
            (tmp_path / f"{name}.yaml").write_text(own_recipes()[name])
            config = zoo.compose(name, overrides, folder=str(tmp_path))
        else:
            assert name in zoo.list_recipes()
            config = zoo.compose(name, overrides) if "stages" in composed(name, ()) else compose(name, overrides)
        if "stages" in config:
            config.run.dir = "run"  # not the time: commands then have most stages in common
            monkeypatch.setattr("multimodal_zoo.commands.stages.compose_whole", stage)
            assert compose_stages(config)
    elif words[0] == "retrieve":
        assert parse_retrieval(words[1:])[0]
    elif words[0] == "app":
        separate(words[1:], GalleryOptions)
    elif words[0] == "report":
        assert separate(words[1:], ReportOptions)[0]
    elif words[0] == "data":
        assert subject is not None
        separate(rest, DATA_OPTIONS[subject])
    elif words[0] in HYDRA_COMMANDS:
        assert subject is not None
        data, overrides = split(overrides) if words[0] in DATA_COMMANDS else (None, overrides)
        overrides += [f"data={data}"] if data in list_group("data") else []  # other data need not be there
        overrides = with_questions(overrides) if words[0] in QUESTION_COMMANDS else overrides
        overrides = with_named_words(overrides, NAMED_WORDS.get(words[0], ()))
        overrides = [as_text(word, TEXT_KEYS.get(words[0], ())) for word in overrides]
        key = SUBJECT_KEYS.get(words[0], "source")
        model = f"model={subject}" if subject in zoo.list_models() else f"{key}='{subject}'"
        compose(f"base/{words[0]}", [model, *overrides])
    elif words[:2] == ["plan", "fuse"]:
        assert {word.partition("=")[0] for word in rest} <= set(names(FusionPlanOptions))
    elif words[0] in ("describe", "plan"):
        assert subject is not None
        words = [word for word in overrides if word.split("=")[0] not in names(PlanOptions, Setting)]
        compose(subject, words) if subject in zoo.list_recipes() else declaration(subject, words)


def test_commands_are_found() -> None:
    assert {words[0] for _, words in commands()} >= set(COMMANDS)


@pytest.mark.parametrize("text", [pytest.param(t, id=n) for n, t in fences("python")])
def test_python_names_exist(text: str) -> None:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            exec(compile(ast.Module([node], []), "fence", "exec"), {})  # submodules are no attributes yet
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zoo":
            assert hasattr(zoo, node.attr), node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create":
            given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
            values = {key: value for key, value in given.items() if key == "embed_dim"}
            declaration(ast.literal_eval(node.args[0]), given.get("overrides", ()), **values)


@pytest.mark.parametrize("text", [pytest.param(t, id=n) for n, t in fences("yaml")])
def test_yaml_parses_and_names_parts_that_exist(text: str, tmp_path: Path) -> None:
    def walk(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("type"), str):
                find(node["type"])
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(yaml.safe_load(text))
    if "@package _global_" in text:
        (tmp_path / "own.yaml").write_text(text)
        zoo.compose("own", folder=str(tmp_path))


def test_every_page_is_in_the_navigation() -> None:
    listed = set(NAV.findall((ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}


def test_the_page_of_parts_is_what_the_registries_hold() -> None:
    spec = spec_from_file_location("parts_page", ROOT / "tests" / "parts_page.py")
    assert spec is not None
    assert spec.loader is not None
    written = module_from_spec(spec)
    spec.loader.exec_module(written)
    assert written.PAGE.read_text(encoding="utf-8") == written.page()


def test_the_api_page_names_what_the_package_offers() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in zoo.__all__:
        assert re.search(rf"(^::: [\w.]+\.{name}$)|`{name}`", page, re.MULTILINE) or name == "__version__", name


def test_the_rooms_are_drawn_as_the_contracts_have_them() -> None:
    layers = re.search(r"layers = \[\n(.*?)\n\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL)
    assert layers is not None
    rooms = re.findall(r"multimodal_zoo\.(\w+)", layers[1])
    drawn = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {room for cell in drawn for room in cell.split("`, `")}
    assert set(rooms) - {"registry"} <= named


@pytest.mark.parametrize("page", [page for page in PAGES if page != ELSEWHERE], ids=lambda page: page.stem)
def test_files_and_options_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"(?:tests|benchmarks|notebooks|recipes|conf)/[\w/]+\.(?:py|yaml|ipynb)", text):
        assert (ROOT / path).is_file(), path
    for group, option in re.findall(r"`(benchmark|callbacks|data|logger|optim|schedule|trainer|launcher)=(\w+)`", text):
        assert option in list_group(group), f"{group}={option}"


@pytest.mark.parametrize("page", SYSTEMS, ids=lambda page: page.stem)
def test_parameter_counts_are_those_of_the_models(page: Path) -> None:
    systems, without = SYSTEMS[page]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", page.read_text(), re.MULTILINE)
    listed = {name for name, card in cards().items() if card["system"] in systems and "_mim_" not in name}
    assert {name for name, _ in rows} == {name for name in listed if without is None or not name.endswith(without)}
    for name, count in rows:  # tests/test_zoo.py holds the cards to the models
        assert cards()[name]["parameters"] == int(count.replace(",", "")), name


@pytest.mark.parametrize("page", SYSTEMS, ids=lambda page: page.stem)
def test_a_page_of_a_system_has_what_readers_look_for(page: Path) -> None:
    """What is verified, what was published (every figure of its cards), and what is not verified."""
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^## (What is (verified|equal)|Equal to)|golden cases?|tests/parity", text, re.MULTILINE)
    assert re.search(r"Not verified", text)
    numbers = {float(shown) for shown in re.findall(r"\d+(?:\.\d+)?", text)}
    for card in cards().values():
        figures = card.get("figures") or {} if card["system"] in SYSTEMS[page][0] else {}
        for shown in re.findall(r"\d+(?:\.\d+)?", " ".join(map(str, figures.values()))):
            assert {float(shown), round(float(shown) / 100, 3)} & numbers, f"{card['name']}: {shown}"


@pytest.mark.parametrize("page", SYSTEMS, ids=lambda page: page.stem)
def test_benchmark_figures_are_the_recorded_ones(page: Path) -> None:
    """Every number in the table stands in the results of its command, ratios too: none is computed from the others."""
    rows = re.findall(r"^\|(.*)\| `python benchmarks/(\w+)\.py` \|$", page.read_text(), re.MULTILINE)
    assert rows
    for cells, name in rows:
        recorded = json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())["rows"]
        values = [v for row in recorded for v in row.values() if isinstance(v, (int, float))]
        for shown in re.findall(r"(?<=\| )[\d.]+", "|" + cells.split("|", 1)[1]):
            step = 10.0 ** -len(shown.partition(".")[2])
            assert any(abs(value - float(shown)) <= 0.5001 * step for value in values), f"{name}: {shown} of {cells}"
