"""GGUF files rewritten with Q8_0 for Q4_1."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal_zoo.captions.engines.q8_weights import has_q4_1, rewrite, with_q8_weights
from multimodal_zoo.checkpoints.gguf import gguf_shards
from multimodal_zoo.gguf_header import read_header

F32, Q4_1, Q8_0 = 0, 3, 8


def text(word: str) -> bytes:
    return struct.pack("<Q", len(word)) + word.encode()


def gguf(path: Path, tensors: dict[str, tuple[tuple[int, ...], int, bytes]], align: int = 64) -> Path:
    """A file with two facts and some tensors, name -> shape, kind, bytes."""
    facts = text("general.architecture") + struct.pack("<I", 8) + text("other")
    facts += text("general.alignment") + struct.pack("<II", 4, align)
    table, data = b"", b""
    for name, (shape, kind, content) in tensors.items():
        table += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        table += struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % align)
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 2) + facts + table
    path.write_bytes(start + b"\0" * (-len(start) % align) + data)
    return path


def q4_1(rows: int, generator: np.random.Generator) -> bytes:
    """Groups with random scales and minima, one of them all zeros."""
    pieces = generator.integers(0, 256, (rows, 20), dtype=np.uint8)
    facts = generator.normal(size=(rows, 2)).astype(np.float16)
    facts[-1] = 0
    pieces[:, :4] = facts.view(np.uint8)
    return pieces.tobytes()


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for shard in gguf_shards(path) for name, tensor in shard.items()}


def test_weights_stay_within_half_a_step_and_the_rest_as_it_is(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    norm = generator.normal(size=5).astype(np.float32)
    old = gguf(
        tmp_path / "old.gguf",
        {
            "a.weight": ((3, 64), Q4_1, q4_1(6, generator)),
            "norm": ((5,), F32, norm.tobytes()),
            "b.weight": ((1, 96), Q4_1, q4_1(3, generator)),
            "c.weight": ((2, 32), Q8_0, q4_1(2, generator)[:34] + b"\1" * 34),
        },
    )
    assert has_q4_1(old)
    rewrite(old, tmp_path / "new.gguf")
    before, after = read_header(old), read_header(tmp_path / "new.gguf")
    assert after.facts == before.facts
    assert [(name, one.shape, one.kind) for name, one in after.tensors.items()] == [
        ("a.weight", (3, 64), Q8_0), ("norm", (5,), F32), ("b.weight", (1, 96), Q8_0), ("c.weight", (2, 32), Q8_0),
    ]  # fmt: skip
    assert all(one.start % 64 == 0 for one in after.tensors.values())
    assert not has_q4_1(tmp_path / "new.gguf")
    one, two = tensors_of(old), tensors_of(tmp_path / "new.gguf")
    for name in ("norm", "c.weight"):
        assert torch.equal(one[name], two[name])
    for name in ("a.weight", "b.weight"):
        groups, found = one[name].reshape(-1, 32), two[name].reshape(-1, 32)
        step = groups.abs().amax(1, keepdim=True) / 127
        assert ((groups - found).abs() <= 0.57 * step + 1e-6).all()  # half a step, and the rounding of the scale


def test_the_cache_keeps_one_file_for_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMZOO_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    path = gguf(tmp_path / "m.gguf", {"a": ((1, 32), Q4_1, q4_1(1, generator))})
    first = with_q8_weights(path)
    stamp = first.stat().st_mtime_ns
    assert with_q8_weights(path) == first
    assert first.stat().st_mtime_ns == stamp
    gguf(path, {"a": ((2, 32), Q4_1, q4_1(2, generator))})
    assert with_q8_weights(path) != first
    assert len(list(first.parent.iterdir())) == 2


def test_errors_say_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gguf(tmp_path / "m.gguf", {"a": ((1, 64), Q4_1, q4_1(2, np.random.default_rng(0)))}, align=8)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MMZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"set MMZOO_CACHE to another folder, or fusion_engine\.weights=stored"):
        with_q8_weights(path)
    path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setenv("MMZOO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="the file ends inside its weights"):
        with_q8_weights(path)
    assert not list((tmp_path / "cache" / "gguf").iterdir())
