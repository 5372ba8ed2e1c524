"""What people type: override strings, configuration trees and whole command lines, from random pieces of real ones."""

from __future__ import annotations

import contextlib
import io
import os
import string
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import torch
from hydra.errors import HydraException
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException

from multimodal_zoo import cli
from multimodal_zoo.commands.data import OPTIONS
from multimodal_zoo.commands.gallery import Options
from multimodal_zoo.commands.names import COMMANDS, HYDRA_COMMANDS
from multimodal_zoo.config import compose
from multimodal_zoo.data import emoji_captions
from multimodal_zoo.data.scenes import generate
from multimodal_zoo.gallery import server
from multimodal_zoo.messages import is_ours
from multimodal_zoo.registry import build

KEYS = (
    "optim.lr", "model", "model.image", "model.text.blocks.depth", "trainer.max_steps", "encoder@model.image", "data",
    "seed", "run", "hydra.run.dir", "+new", "~optim", "++a.b", "objective", "stages.one.optim.lr", "", " ", "a.b.c",
)  # fmt: skip
VALUES = (
    "1", "1e-3", "null", "true", "clip_tiny", "[1,2]", "{a: 1}", "${model}", "${oc.env:HOME}", "${nothing:1}", "???",
    "a,b", "'x", '"', "range(1,3)", "choice(1,2)", "glob(*)", "{", "[", "${", "\\", "a=b", "!!python/object:x", "1e999",
)  # fmt: skip
#: Texts of any characters that arguments of a process can have, and those that grammars are made of.
ODD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
MARKS = st.text("=+~@.,:{}[]()'\"$\\!&*- \t\nab1é", max_size=14)
OVERRIDES = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.builds("{}={}".format, st.sampled_from(KEYS), MARKS),
    st.builds(
        "{}={}".format, st.text(string.ascii_lowercase + "._@", min_size=1, max_size=12), st.sampled_from(VALUES)
    ),
    MARKS,
    ODD,
)
#: Plain arguments of parts that hold no other part.
PARTS = ("layer_norm", "rms_norm", "class_token", "vision_transformer", "gelu_mlp", "nothing", "linear", "dual_encoder")
NAMES = st.sampled_from(("width", "depth", "heads", "hidden", "type", "_target_", "blocks", "image", "card", "x", ""))
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), MARKS, st.sampled_from(PARTS),
    st.sampled_from(("torch.nn.Identity", "torch.os.system", "os.system", "torch.nn.Linear", "builtins.eval")),
)  # fmt: skip
TREES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=4),
        st.builds(lambda name, rest: {**rest, "type": name}, st.sampled_from(PARTS), st.dictionaries(NAMES, inner)),
    ),
    max_leaves=8,
)


def composed(words: Sequence[str]) -> str:
    """Compose a recipe with overrides: `read`, or `refused` by an error that is meant for people.

    Raises:
        AssertionError: any other error.
    """
    try:
        compose("quickstart", list(words))
    except (HydraException, OmegaConfBaseException):
        return "refused"
    except Exception as error:
        return refused(error, words)
    return "read"


def built(tree: Any) -> str:
    """Build what a tree describes; as `composed`."""
    try:
        with torch.device("meta"):
            build(tree, path="model")
    except Exception as error:
        return refused(error, tree)
    return "read"


def refused(error: Exception, given: Any) -> str:
    """`refused` for an error that is a message.

    Raises:
        AssertionError: it is none.
    """
    if isinstance(error, (RecursionError, MemoryError)) or not is_ours(error):
        raise AssertionError(f"{given}: raw {type(error).__name__}: {error}") from error
    return "refused"


#: What follows a command so that nothing is computed, where a random line could be a whole one.
HARMLESS = {name: ["--cfg", "job"] for name in HYDRA_COMMANDS}
#: Commands that take words of their own: one would serve a page, the other make data (`OWN_LINES`).
LEFT_OUT = ("app", "data")
WORDS = st.one_of(
    OVERRIDES, st.sampled_from(("quickstart", "clip_tiny", "a.png", "nowhere/", "--help", "-x", "json=true"))
)
NUMBERS = ("0", "-1", "1", "2", "70000", "99999999999999999999", "1" * 5000, "2.5", "0x1", "\u0663", "64x36", "9x9")
OWN_VALUES = st.sampled_from((*NUMBERS, *VALUES, "twemoji", "train", "cpu", "cuda:7", "mps", "127.0.0.1", "::1", ""))
OWN_NAMES = {kind: [field.name for field in fields(options)] for kind, options in (*OPTIONS.items(), ("app", Options))}
OWN_LINES = st.sampled_from(sorted(OWN_NAMES)).flatmap(
    lambda kind: st.tuples(
        st.just("app" if kind == "app" else "data"),
        st.builds(
            lambda first, rest: [*first, *rest],
            st.just([]) if kind == "app" else st.sampled_from(([kind, "new"], [kind, "."], [kind], ["x"], [])),
            st.lists(
                st.one_of(st.builds("{}={}".format, st.sampled_from(OWN_NAMES[kind]), OWN_VALUES), WORDS), max_size=4
            ),
        ),
    )
)
LINES = st.tuples(st.sampled_from(sorted(set(COMMANDS) - set(LEFT_OUT))), st.lists(WORDS, max_size=4))


@contextlib.contextmanager
def stood_in() -> Iterator[None]:
    """Pages inside end as they are served, and data are asked for and not made."""

    def served(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch.object(server, "serving", served),
        mock.patch.object(generate, "drafted", return_value=contextlib.nullcontext(Path(place))),
        mock.patch.object(generate, "_write"),
        mock.patch.object(generate, "_place"),
        mock.patch.object(emoji_captions, "atomic_folder", return_value=contextlib.nullcontext(Path(place))),
        mock.patch.object(emoji_captions, "_documents", return_value=[]),
    ):
        yield


def answered(command: str, words: Sequence[str], folder: Path) -> str:
    """Run a command line in an empty folder; as `composed`.

    Raises:
        AssertionError: an error that is no message, or something left in the folder.
    """
    here, told, threads = Path.cwd(), io.StringIO(), torch.get_num_threads()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), stood_in():
            status = cli.main([command, *words, *HARMLESS.get(command, [])])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except Exception as error:
        raise AssertionError(f"mmzoo {command} {words}: raw {type(error).__name__}: {error}") from error
    finally:
        os.chdir(here)
        torch.set_num_threads(threads)
    assert not list(folder.iterdir()), f"mmzoo {command} {words} left {list(folder.iterdir())}"
    return "read" if status == 0 else "refused"
