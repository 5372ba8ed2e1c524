from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from multimodal_zoo.checkpoints.errors import (
    CorruptCheckpoint,
    MissingCheckpoint,
    UnknownCheckpoint,
    UnsafeCheckpoint,
)
from multimodal_zoo.checkpoints.files import iterate_shards, manifest, read_state_dict
from multimodal_zoo.checkpoints.locate import resolve, weight_files
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.writing import write_file, write_folder, write_safetensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.tensor(2.5)}


class Bomb:
    def __reduce__(self):
        return os.system, ("touch never",)


def same(found, expected=STATE):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def sharded(folder: Path, suffix: str) -> Path:
    folder.mkdir(exist_ok=True)
    names = ["one" + suffix, "two" + suffix]
    parts = [{k: STATE[k] for k in ("a.weight", "c")}, {"b": STATE["b"]}]
    for name, part in zip(names, parts, strict=True):
        save_file(part, folder / name) if suffix == ".safetensors" else torch.save(part, folder / name)
    index = folder / ("model.safetensors.index.json" if suffix == ".safetensors" else "pytorch_model.bin.index.json")
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": {k: n for n, p in zip(names, parts, strict=True) for k in p}})
    )
    return index


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_every_format_reads_back(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(OrderedDict(STATE), path)
    same(read_state_dict(path))
    same(read_state_dict(tmp_path))  # the folder's only weight file
    shapes = manifest(path)
    assert all(tensor.is_meta for tensor in shapes.values())
    assert {k: (v.shape, v.dtype) for k, v in shapes.items()} == {k: (v.shape, v.dtype) for k, v in STATE.items()}


def test_legacy_pickle_reads(tmp_path):
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    same(read_state_dict(tmp_path / "old.pth"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_wrappers_and_module_prefix_are_removed(tmp_path, wrapper):
    inner = {f"module.{k}": v for k, v in STATE.items()}
    torch.save({wrapper: inner, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "x.pt")
    same(read_state_dict(tmp_path / "x.pt"))


def test_prefix_stays_if_only_some_names_have_it(tmp_path):
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "x.pt")
    same(read_state_dict(tmp_path / "x.pt"), state)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_come_one_by_one(tmp_path, suffix):
    index = sharded(tmp_path / "s", suffix)
    for path in (index, index.parent):
        shards = list(iterate_shards(path))
        assert [sorted(s) for s in shards] == [["a.weight", "c"], ["b"]]
        same(read_state_dict(path))


def test_faulty_indices(tmp_path):
    index = sharded(tmp_path / "s", ".safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = "two.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(CorruptCheckpoint, match=r"two\.safetensors: disagrees.*ghost"):
        read_state_dict(index)
    content["weight_map"]["ghost"] = "three.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(MissingCheckpoint, match=r"three\.safetensors"):
        read_state_dict(index)
    content["weight_map"]["ghost"] = "../../etc/three.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(CorruptCheckpoint, match="own folder"):
        read_state_dict(index)
    index.write_text("{")
    with pytest.raises(CorruptCheckpoint, match="weight_map"):
        read_state_dict(index)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_with_code_are_refused(tmp_path, legacy):
    path = tmp_path / "bomb.pt"
    torch.save({"a": torch.ones(2), "b": Bomb()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeCheckpoint, match=r"bomb\.pt: refused.*posix\.system"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps({"b": Bomb()}, protocol=2))
    with pytest.raises(UnsafeCheckpoint, match=r"bomb\.pt: refused.*posix\.system"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.98])
def test_truncated_files(tmp_path, suffix, keep):
    path = tmp_path / f"weights{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(CorruptCheckpoint, match=str(path)):
        read_state_dict(path)


def test_other_content_is_told(tmp_path):
    for content, expected in ([1, 2], "list"), ({"lr": 0.1, "name": "x"}, "lr, name"):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(UnknownCheckpoint, match=expected):
            read_state_dict(tmp_path / "x.pt")
    (tmp_path / "x.txt").write_text("no")
    with pytest.raises(UnknownCheckpoint, match=r"\.safetensors"):
        read_state_dict(tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownCheckpoint, match=r"model\.safetensors.*there: none"):
        weight_files(tmp_path / "empty")


def test_missing_paths(tmp_path, monkeypatch):
    (tmp_path / "present.pt").touch()
    with pytest.raises(MissingCheckpoint, match=r"absent\.pt.*present\.pt"):
        resolve(tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError, match=r"the folder .*b does not exist"):
        resolve(tmp_path / "a" / "b" / "absent.pt")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no checkpoint at absent; its folder holds nothing"):
        resolve("absent")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at clip_tiny, but a variant: .*create"):
        resolve("clip_tiny")
    with pytest.raises(MissingCheckpoint, match="only local paths"):
        resolve("ftp://host/x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("hf://someone/something/file.pt", "hf://someone/something"):
        with pytest.raises(MissingCheckpoint, match="hf download someone/something"):
            resolve(name)
    with pytest.raises(MissingCheckpoint, match="organisation"):
        resolve("hf://someone")


def test_hub_cache_is_read(tmp_path, monkeypatch):
    commit = "0" * 40
    snapshot = tmp_path / "models--org--repo" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(commit)
    save_file(STATE, snapshot / "w.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    same(read_state_dict("hf://org/repo/w.safetensors"))
    same(read_state_dict("hf://org/repo"))


def test_sha256(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(STATE, path)
    Source("a file", path, {}).verify(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(CorruptCheckpoint, match="the card says"):
        Source("a file", path, {}).verify("0" * 64)
    with pytest.raises(CorruptCheckpoint, match="for 2 files"):
        Source("shards", sharded(tmp_path / "s", ".bin"), {}).verify("0" * 64)


def test_torchscript_archives_give_tensors_without_running(tmp_path, monkeypatch):
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
            self.scale = nn.Parameter(torch.tensor(1.5))
            self.plain = torch.ones(3)  # no buffer: not part of the state dict
            self.register_buffer("context_length", torch.tensor(77))

        def forward(self, x):
            return self.layers(x) * self.scale + self.plain.sum()

    tower = Tower().half()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(tower), tmp_path / "scripted.pt")
        torch.jit.save(torch.jit.trace(tower.eval().float(), torch.ones(1, 2)), tmp_path / "traced.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    same(read_state_dict(tmp_path / "scripted.pt"), tower.half().state_dict())
    same(read_state_dict(tmp_path / "traced.pt"), tower.float().state_dict())
    assert {k: tuple(v.shape) for k, v in manifest(tmp_path / "scripted.pt").items()} == {
        k: tuple(v.shape) for k, v in tower.state_dict().items()
    }


def test_torchscript_archive_with_foreign_code_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/constants.pkl", pickle.dumps(()))
        archive.writestr("x/data.pkl", pickle.dumps({"b": Bomb()}, protocol=2))
    with pytest.raises(UnsafeCheckpoint, match=r"posix\.system"):
        read_state_dict(tmp_path / "x.pt")


def test_memory_mapped_reads_leave_the_file_alone(tmp_path):
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"x{suffix}"
        save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
        before = path.read_bytes()
        read_state_dict(path)["a.weight"].add_(1)
        assert path.read_bytes() == before


def test_writes_are_whole_or_absent(tmp_path):
    def fail(path: Path) -> None:
        (path / "part" if path.is_dir() else path).write_text("half")
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("old")
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "file", fail)
    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "folder", fail)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "kept"]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "kept").read_text() == "old"
    write_folder(tmp_path / "folder", lambda path: (path / "new").write_text("new"))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "new"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "folder" / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_shared_and_strided_tensors_are_written_each(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"whole": base, "again": base, "row": base[1], "turned": base.t()}
    same(read_state_dict(write_safetensors(tmp_path / "x.safetensors", state)), state)
