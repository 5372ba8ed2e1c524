"""Shards of emoji with captions to fuse."""

from __future__ import annotations

from pathlib import Path

from multimodal_zoo.data.emoji_captions import write_captions


def test_an_empty_folder_behind_a_link_is_filled(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "captions").symlink_to(tmp_path / "large")
    shards, rows = write_captions(str(tmp_path / "captions"), rows=3)
    assert rows == 3
    assert shards == [tmp_path / "large" / "00000.tar"]
    assert {path.name for path in tmp_path.iterdir()} == {"captions", "large"}
    assert shards[0].is_file()
