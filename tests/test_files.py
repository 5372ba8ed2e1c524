"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multimodal_zoo.files import (
    atomic_file,
    atomic_folder,
    bounded,
    drafted,
    leftovers,
    parsed,
    reading,
    write_bytes,
    write_text,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npy"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".npy"
    assert path.read_text() == "new"
    assert names(path.parent) == {"a.npy"}
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old, ä")

    def _stop() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _stop()
    assert path.read_text(encoding="utf-8") == "old, ä"
    assert names(tmp_path) == {"a.txt"}
    with pytest.raises(OSError, match=r"a\.txt"):
        write_bytes(path / "below a file", b"x")


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_file(path) as one, atomic_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert names(tmp_path) == {"a"}


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new.d" / "set"
    with atomic_folder(path) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "a").write_text("a")
        assert names(path.parent) == {temporary.name}
    assert (path / "below" / "a").read_text() == "a"
    with pytest.raises(OSError, match="set"), atomic_folder(path) as temporary:  # it was filled meanwhile
        (temporary / "b").touch()
    assert names(path.parent) == {"set"}
    assert names(path) == {"below"}


def test_what_killed_writers_left_is_found_by_the_name_to_come(tmp_path: Path) -> None:
    for name in (".a.0123456789ab.npy", ".b.0123456789ab", ".a.npy", ".a.0123.npy", "a.0123456789ab.npy"):
        (tmp_path / name).touch()
    assert [path.name for path in leftovers(tmp_path)] == [".a.0123456789ab.npy", ".b.0123456789ab"]
    assert [path.name for path in leftovers(tmp_path, "*.npy")] == [".a.0123456789ab.npy"]
    assert leftovers(tmp_path / "nowhere") == []


def test_a_folder_that_nobody_holds_is_cleared_away(tmp_path: Path) -> None:
    """Writers at work hold theirs, and one that has just begun may not do so yet."""
    left = [tmp_path / f".{name}.0123456789ab" for name in ("[set]", "s")]
    for path in left:
        path.mkdir()
    with drafted(tmp_path / "[set]"):
        assert left[0].exists()  # a moment old
    for path in left:
        os.utime(path, (0, 0))
    with drafted(tmp_path / "[set]") as one:
        assert not left[0].exists()
        assert left[1].exists()
        os.utime(one, (0, 0))
        with drafted(tmp_path / "[set]") as other:
            assert one.exists()
            assert other.exists()
    assert names(tmp_path) == {left[1].name}


def test_what_goes_wrong_while_reading_names_the_file(tmp_path: Path) -> None:
    """Whatever a library raises; what says so already, and what is missing, stays as it is."""
    path = tmp_path / "a.bin"
    for error, reason in (
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: more memory is asked for than there is"),
        (RecursionError("deep"), "RecursionError: deep"),
        (OSError("first\nsecond"), r"OSError: first\)"),
    ):
        with (
            pytest.raises(ValueError, match=rf"a\.bin is damaged or no list \({reason}.*; mend it"),
            reading(path, "list", "mend it"),
        ):
            raise error
    for error in (FileNotFoundError("b"), ImportError("no library"), ValueError(f"{path}, line 3: no number")):
        with pytest.raises(type(error)) as found, reading(path, "list"):
            raise error
        assert found.value is error
    with pytest.raises(EOFError, match="no part"), reading(path, "part", kind=EOFError, passing=(KeyError,)):
        raise TypeError("x")


@pytest.mark.parametrize("text", ["[" * 100_000, b"\xff", "9" * 5000, "", "{"])
def test_json_that_is_none_is_always_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(text)


def test_a_tree_is_as_large_as_what_it_stands_for() -> None:
    shared: list[object] = [1] * 9
    for _ in range(9):
        shared = [shared] * 9
    bounded({"a": [1, 2], "b": {"c": None}}, 6)
    for tree, most in ((shared, 100_000), ({"a": [1, 2], "b": {"c": None}}, 5)):
        with pytest.raises(ValueError, match=f"more than {most:,} nodes"):
            bounded(tree, most)
