"""What SECURITY.md promises: nothing in the source runs what a file says, and little reaches the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from multimodal_zoo.commands.hydra_node import check_recipe
from multimodal_zoo.registry import build

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "multimodal_zoo"
#: (file, what was found) -> why it may be there. An entry that is no longer needed fails.
ALLOWED = {
    ("checkpoints/scripted.py", "pickle.Unpickler"): "a subclass whose find_class knows nine harmless names",
    ("data/camera_pickle.py", "pickle.Unpickler"): "a subclass whose find_class knows numpy arrays and containers",
    ("captions/process_runner.py", "pickle.loads"): "of an error that the same line pickled",
    ("data/prompts.py", "runpy"): "a table of the installed open_clip, without importing all of its models",
    ("data/shards.py", "webdataset.gopen"): "addresses of shards, `pipe:` among them, which SECURITY.md describes",
    ("checkpoints/locate.py", "huggingface_hub"): "downloads hf:// names",
    ("data/benchmark_set.py", "urllib.request"): "asks whether an http address exists, of an evaluation set given so",
    ("data/folder_pairs.py", "load_dataset"): "a data set given by its name on the Hub",
    ("captions/ray_runner.py", "socket"): "asks whether the Ray cluster of runner.address answers",
    ("captions/engines/http_posting.py", "httpx"): "the server of fusion_engine.url",
    ("captions/engines/llama_cpp_server.py", "http.client"): "llama.cpp's server on this machine's loopback",
}
#: A recipe's beginning.
HEAD = "# @package _global_\ndefaults: [/base/train, override /model: clip_tiny, override /data: emoji, _self_]\n"
#: Modules that run what they read, start programs or open connections.
MODULES = {
    "subprocess", "marshal", "shelve", "dill", "joblib", "cloudpickle", "runpy", "code", "torch.hub", "torch.package",
    "socket", "httpx", "requests", "aiohttp", "urllib.request", "http.client", "http.server", "ftplib", "smtplib",
    "huggingface_hub", "webdataset.gopen",
}  # fmt: skip
#: Functions that do.
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv",
    "pickle.load", "pickle.loads", "torch.hub.load", "torch.jit.load", "torch.utils.cpp_extension.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all",
    "jinja2.Environment", "jinja2.Template", "Environment", "Template", "SandboxedEnvironment",
}  # fmt: skip
#: Methods that do, whatever they belong to.
METHODS = {"extract", "extractall", "unpack_archive", "load_dataset", "fromfile"}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := dotted(node.value)) else f"?.{node.attr}"
    return ""


def constant(call: ast.Call, key: str) -> object:
    """The constant that a keyword has; `...` without one."""
    found = [word.value for word in call.keywords if word.arg == key]
    return found[0].value if found and isinstance(found[0], ast.Constant) else ...


def suspicions(text: str) -> Iterator[str]:
    """Everything in a source file that would need a reason."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            base = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [f"{base}.{alias.name}".strip(".") for alias in node.names]
            for module in (base, *names):
                yield from (known for known in MODULES if module == known or module.startswith(f"{known}."))
        elif isinstance(node, ast.Attribute) and dotted(node) == "pickle.Unpickler":
            yield "pickle.Unpickler"
        elif isinstance(node, ast.Call):
            yield from call_suspicions(node)


def call_suspicions(call: ast.Call) -> Iterator[str]:
    """What of a call would need a reason."""
    name = dotted(call.func)
    last = name.rpartition(".")[2]
    if name in CALLS:
        yield name
    if last in METHODS:
        yield last
    if name == "torch.load" and constant(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load") and constant(call, "allow_pickle") is not False:
        yield "np.load without allow_pickle=False"
    if constant(call, "shell") is True:
        yield "shell=True"
    if constant(call, "allow_pickle") is True:
        yield "allow_pickle=True"
    if constant(call, "trust_remote_code") not in (..., False):
        yield "trust_remote_code"
    family = re.search(r"(^|\.)Auto\w+\.from_(pretrained|config)$", name)
    if family and constant(call, "trust_remote_code") is not False and "LOCAL" not in ast.unparse(call):
        yield "Auto class without trust_remote_code=False"


def test_nothing_runs_what_a_file_says() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), what)
        for path in SOURCE.rglob("*.py")
        for what in suspicions(path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import pickle\npickle.load(f)", "pickle.load"),
        ("torch.load(p)", "torch.load without weights_only=True"),
        ("torch.load(p, weights_only=False)", "torch.load without weights_only=True"),
        ("torch.load(p, weights_only=flag)", "torch.load without weights_only=True"),
        ("np.load(p)", "np.load without allow_pickle=False"),
        ("eval(x)", "eval"),
        ("yaml.load(x, Loader=yaml.SafeLoader)", "yaml.load"),
        ("run(x, shell=True)", "shell=True"),
        ("import subprocess", "subprocess"),
        ("from urllib import request", "urllib.request"),
        ("from os import path; os.system('x')", "os.system"),
        ("AutoModel.from_pretrained(p)", "Auto class without trust_remote_code=False"),
        ("transformers.AutoModel.from_pretrained(p, trust_remote_code=True)", "trust_remote_code"),
        ("tar.extractall(p)", "extractall"),
        ("torch.hub.load('a', 'b')", "torch.hub.load"),
        ("jinja2.Environment()", "jinja2.Environment"),
    ],
)
def test_the_scan_sees(text: str, what: str) -> None:
    assert what in set(suspicions(text))


def test_the_scan_is_quiet_where_all_is_well() -> None:
    loads = "torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)\nyaml.safe_load(x)"
    assert not set(suspicions(f"model.eval()\nre.compile(x)\n{loads}"))


def test_the_unpicklers_find_nothing_that_runs() -> None:
    from multimodal_zoo.checkpoints.scripted import _ADMITTED
    from multimodal_zoo.data.camera_pickle import ALLOWED as ARRAYS

    assert {module.partition(".")[0] for module, _ in _ADMITTED} == {"torch", "collections"}
    assert {module.partition(".")[0] for module, _ in ARRAYS} == {"numpy", "collections", "builtins"}
    assert {name for module, name in ARRAYS if module == "builtins"} == {
        "set", "frozenset", "complex", "bytearray", "slice", "range"
    }  # fmt: skip


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.Popen", "torch.hub.load", "torch.nn.os.system", "builtins.eval", "lightning.os.system",
     "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler"],
)  # fmt: skip
def test_targets_are_classes_of_a_few_packages(target: str) -> None:
    with pytest.raises((ValueError, KeyError, ImportError, AttributeError, TypeError)):
        build({"_target_": target})


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ("callbacks: {x: {_target_: os.mkdir, path: ran}}", "hydra.callbacks.x._target_"),
        ("launcher: {_target_: os.system}", "hydra.launcher._target_"),
        ("sweeper: {_target_: hydra.utils.call}", "hydra.sweeper._target_"),
        ("job_logging: {handlers: {x: {class: logging.os.system}}}", "hydra.job_logging.handlers.x.class"),
        ("hydra_logging: {formatters: {x: {(): os.getcwd}}}", "hydra.hydra_logging.formatters.x.()"),
        ("job: {env_set: {LD_PRELOAD: evil.so}}", "hydra.job.env_set"),
    ],
)  # fmt: skip
def test_a_recipe_cannot_have_hydra_call_something(tmp_path: Path, node: str, place: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"{HEAD}hydra:\n  {node}\n")
    with pytest.raises(ValueError, match=re.escape(f"mine.yaml sets {place} to")):
        check_recipe("mine", ["trainer.max_steps=1"], str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(place)):
        check_recipe("mine", ["trainer.max_steps=1,2", "-m"], str(tmp_path))


def test_plain_recipes_and_words_of_the_command_line_pass(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"{HEAD}hydra: {{sweep: {{dir: here}}, job: {{chdir: false}}}}\n")
    check_recipe("mine", ["seed=1"], str(tmp_path))
    (tmp_path / "mine.yaml").write_text(f"{HEAD}hydra: {{callbacks: {{x: {{_target_: my.Callback}}}}}}\n")
    check_recipe("mine", ["hydra.callbacks.x._target_=my.Callback"], str(tmp_path))


def test_the_page_names_every_exception() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for file, _ in ALLOWED:
        assert f"`{file}`" in text, f"SECURITY.md does not name {file}"
    for path in re.findall(r"`([\w/]+\.py)`", text):
        assert (SOURCE / path).is_file() or (ROOT / path).is_file(), path
