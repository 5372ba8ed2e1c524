"""What the fuzzer found once, an input of each kind: bare errors of libraries, work and waiting without end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_data import by_number, picture
from fuzz_harness import REFUSED, attempt
from fuzz_results import DOORS as RESULTS
from fuzz_weights import CONFIGS, STATE, tiny
from safetensors.torch import save_file

import multimodal_zoo as zoo
from multimodal_zoo.captions.sources import Unit
from multimodal_zoo.captions.unit_checks import verify
from multimodal_zoo.captions.unit_files import record_of, write_unit
from multimodal_zoo.checkpoints.errors import CheckpointError, CorruptCheckpoint
from multimodal_zoo.checkpoints.files import read_state_dict
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.cli import main
from multimodal_zoo.config import compose
from multimodal_zoo.data.conversations import ConversationList
from multimodal_zoo.data.pictures import open_picture
from multimodal_zoo.data.skips import UnusableError, inside
from multimodal_zoo.data.tables import rows_of
from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder
from multimodal_zoo.evaluation.nearest import search_shards
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.json_tokenizer import JsonTokenizer

DEEP = "[" * 100_000


def _zip(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        torch.save(STATE, folder / "a.pt")
        (folder / "a.pt").write_bytes(change((folder / "a.pt").read_bytes()))
        return folder / "a.pt"

    return make


def _old(folder: Path) -> Path:
    """The old form, whose list of storages names another one."""
    torch.save(STATE, folder / "a.pth", _use_new_zipfile_serialization=False)
    content = (folder / "a.pth").read_bytes()
    place = content.rindex(b"X", 0, -200)
    (folder / "a.pth").write_bytes(content[:place] + b"Y" + content[place + 1 :])
    return folder / "a.pth"


def _index(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "model.safetensors.index.json").write_text(text)
        return folder / "model.safetensors.index.json"

    return make


@pytest.mark.parametrize(
    "make",
    [
        _zip(lambda content: content.replace(b"PK\x01\x02", b"PK\x01\x03")),
        _zip(lambda content: content[: len(content) // 2]),
        _old,
        _index(DEEP),
        _index(json.dumps({"weight_map": {"a": "é" * 300}})),
    ],
    ids=["zip without directory", "half a zip", "old pickle", "deep index", "long name"],
)
def test_weights(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(CheckpointError, match=path.name.replace(".", r"\.")):
        read_state_dict(path)


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 2**31), ("hidden_size", "x"), ("hidden_size", None)])
def test_configurations_of_weights(key: str, value: Any, tmp_path: Path) -> None:
    """A number of blocks that would be built for hours, and values that are no numbers."""
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS["llama"], key: value}))
    with pytest.raises(CorruptCheckpoint, match=r"model\.safetensors|" + tmp_path.name):
        zoo.from_pretrained(tmp_path)


def test_damaged_weights_leave_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A conversion of weights that are cut off leaves no folder, nor anything beside it."""
    weights = save_model(tiny(), tmp_path / "saved") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["convert", str(tmp_path / "saved"), "naming=ours", f"out={tmp_path / 'out'}"]) == 1
    assert "model.safetensors is damaged or no complete safetensors file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"image,text\na.png,caf\xe9\n")
    with pytest.raises(ValueError, match=r"a\.csv is damaged or no whole \.csv table, its texts in UTF-8 .*0xe9"):
        list(rows_of(tmp_path / "a.csv"))
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n{DEEP}\n')
    assert list(rows_of(tmp_path / "a.jsonl")) == [{"text": "one"}, {}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("detections of a challenge", DEEP.encode()),
        ("true answers, VQAv2", b'{"annotations": [[]]}'),
        ("true answers, MME", b"what?\tYes\xff"),
        ("questions of a test", b'{"questions": [{"question_id": "\\ud800"}]}'),
        ("captions of Karpathy's splits", b'{"images": [{"filename": 1, "split": "test", "sentences": [0]}]}'),
        ("captions of COCO", b'{"images": [{"id": [], "file_name": "a.png"}]}'),
        ("dialogues", b'{"data": {"questions": [0], "answers": [0], "dialogs": [{"image_id": 1, "dialog": '
         b'[{"question": 0, "answer_options": [0], "gt_index": Infinity}]}]}}'),
        ("note of a stage", b"[]"),
        ("queries", b"caf\xe9\n"),
    ],
)  # fmt: skip
def test_results(name: str, content: bytes, tmp_path: Path) -> None:
    """Files of answers, detections and earlier runs that were read without a look at what they hold."""
    door = next(door for door in RESULTS if door.name == name)
    path = door.make(tmp_path)
    path.write_bytes(content)
    assert attempt(door, path)[0] == REFUSED


def test_records_of_fused_units(tmp_path: Path) -> None:
    write_unit(tmp_path, Unit("part", "rows.jsonl", 0, 0), [])
    path = tmp_path / "records" / "part.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sizes": 5}))
    assert record_of(tmp_path, "part") is None  # it is written again
    assert "part.json is damaged or no record of a unit" in verify(tmp_path)[0]


def test_names_in_records(tmp_path: Path) -> None:
    """A name with a zero, an over-long one, one that leads out, and half a character in a text."""
    for name in ("a\0b", "é" * 300):
        with pytest.raises(UnusableError, match="path that no file can have: key: "):
            inside(tmp_path, name, "key")
    with pytest.raises(UnusableError, match="path outside the folder: key"):
        inside(tmp_path, "../a", "key")
    assert inside(tmp_path, "/a.png", "key") == tmp_path / "a.png"
    (tmp_path / "a.png").write_bytes(picture())
    turns = [{"from": "human", "value": "<image> \ud800"}, {"from": "gpt", "value": "x"}]
    (tmp_path / "list.json").write_text(json.dumps([{"image": "a.png", "conversations": turns}]))
    by_number(ConversationList(str(tmp_path / "list.json"), str(tmp_path)))


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(UnusableError, match="no plain file"):
            open_picture(path)


def test_a_panic_in_rust_is_an_error(tmp_path: Path) -> None:
    """The package tokenizers panics at merges that are shorter than a prefix of the pieces behind."""
    model = {
        "type": "BPE",
        "continuing_subword_prefix": "é" * 300,
        "vocab": {"a": 0, "b": 1, "ab": 2},
        "merges": ["a b"],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged or no tokenizer\.json"):
        JsonTokenizer(str(tmp_path / "tokenizer.json"), "a", "a").encode(["ab"])


def test_shards_of_embeddings(tmp_path: Path) -> None:
    folder = EmbeddingFolder(tmp_path, "npz")
    queries = np.ones((1, 4), np.float32)
    for columns, said in (
        ({"key": ["a"], "image_embedding": np.ones(4, np.float32)}, "of shape"),
        ({"key": ["a"], "image_embedding": np.ones((2, 4), np.float32)}, "differ in their numbers of rows"),
    ):
        folder.write(0, columns, {})
        with pytest.raises(ValueError, match=rf"000-00000\.npz is damaged: .*{said}"):
            search_shards(queries, folder.shards(), "image_embedding", 1, "torch")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"_target_": None}, r"model\._target_: None is not allowed"),
        ({"type": ["x"]}, r"model\.type is \['x'\]; expected the name of a component"),
        ({"type": "layer_norm", "width": "x", "eps": 1e-5}, r"model\.width is 'x'; expected a whole number"),
        ({"type": "layer_norm", "width": -1, "eps": 1e-5}, r"model: 'layer_norm' cannot be built of these values"),
    ],
)
def test_values_that_parts_hand_on_unseen(tree: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        build(tree, path="model")


def test_an_override_without_a_key() -> None:
    with pytest.raises(ValueError, match="=1: cannot be composed"):
        compose("quickstart", ["=1"])
