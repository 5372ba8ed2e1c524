"""Where an engine's model is."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal_zoo.captions.engines.model_files import PIECE, PIECES, find_model, fingerprint, gguf_path


def test_files_and_folders_are_found(tmp_path: Path) -> None:
    file = tmp_path / "alone" / "small.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    for place in (file, file.parent):
        found = find_model(place)
        assert found.path == file
        assert found.is_gguf
        assert found.files() == [file]
        assert gguf_path(place) == file
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    (folder / ".hidden").write_bytes(b"x")
    found = find_model(str(folder))
    assert not found.is_gguf
    assert [one.name for one in found.files()] == ["config.json", "model.safetensors"]
    with pytest.raises(ValueError, match=r"holds 0 \.gguf files"):
        gguf_path(folder)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json and 0 \.gguf files.*found nothing"):
        find_model(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"2 \.gguf files.*found a\.gguf, b\.gguf"):
        find_model(tmp_path)
    other = tmp_path / "notes.txt"
    other.write_text("x")
    with pytest.raises(ValueError, match=r"expected a \.gguf file or a folder"):
        find_model(other)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at"):
        find_model(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no_such_package"):
        find_model("package:no_such_package")


def test_fingerprints_tell_models_apart(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"one")
    large.write_bytes(bytes(PIECES * PIECE * 2))
    first = fingerprint([small, large])
    assert fingerprint([small, large]) == first != fingerprint([large, small])
    for place in (0, PIECES * PIECE * 2 - 1):  # both ends are read
        with large.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        second = fingerprint([small, large])
        assert second != first
        first = second
    small.write_bytes(b"two")
    assert fingerprint([small, large]) != first
