"""Which caption a picture gets, from its own facts and from tables."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from multimodal_zoo.config import compose
from multimodal_zoo.data import caption_table
from multimodal_zoo.data.caption_policies import ColumnCaption, MixedCaption
from multimodal_zoo.data.caption_table import CaptionTable, texts_of
from multimodal_zoo.data.captions import TextCaption
from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import build

ROWS: list[dict[str, Any]] = [
    {"key": "a/1", "raw": "Lisbon 28", "synthetic": ["a tram", "a street"], "fused": "Tram 28 in Lisbon."},
    {"key": "b/2", "raw": "img_2", "synthetic": ["a dog"], "fused": "As an AI", "status": "rejected"},
    {"key": "c/3", "raw": " Faro ", "synthetic": [], "fused": ""},
    {"key": "d/4", "raw": "", "synthetic": ["  "], "fused": None},
]
FUSED = ("fused", "synthetic", "raw")


def document(key: str, **facts: Any) -> Document:
    return pair(np.zeros((1, 1, 3), np.uint8), "own text", {"key": key, **facts})


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"status": "fused", **row} for row in rows]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(params=["parquet", "jsonl", "folder"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> CaptionTable:
    if request.param == "jsonl":
        return CaptionTable(str(write_lines(tmp_path / "captions.jsonl", ROWS)))
    if request.param == "parquet":
        return CaptionTable(str(write_parquet(tmp_path / "captions.parquet", ROWS)))
    write_parquet(tmp_path / "out" / "parquet" / "a.parquet", ROWS[:1])
    write_parquet(tmp_path / "out" / "parquet" / "b.parquet", ROWS[1:])
    write_parquet(tmp_path / "out" / "parquet" / ".half.parquet", ROWS[:1])
    (tmp_path / "out" / "manifest.json").write_text("{}", encoding="utf-8")
    return CaptionTable(str(tmp_path / "out"))


@pytest.mark.parametrize("own", [True, False])
def test_what_stands_in_for_what(table: CaptionTable, own: bool) -> None:
    def captions(*columns: str) -> list[str]:
        sampler = ColumnCaption(columns, None if own else table)
        return [sampler(document(**(row if own else {"key": row["key"]})), Random(1)) for row in ROWS[:3]]

    assert captions("raw", "synthetic") == ["Lisbon 28", "img_2", "Faro"]
    assert captions(*FUSED) == ["Tram 28 in Lisbon.", "a dog", "Faro"]
    assert captions("synthetic", "raw")[1:] == ["a dog", "Faro"]
    assert captions("fused", "raw") == ["Tram 28 in Lisbon.", "img_2", "Faro"]
    with pytest.raises(UnusableError, match=r"no fused or synthetic or raw caption: d/4"):
        ColumnCaption(FUSED, None if own else table)(document(**(ROWS[3] if own else {"key": "d/4"})), Random(0))


def test_several_synthetic_captions_are_drawn(table: CaptionTable) -> None:
    sampler = ColumnCaption(["synthetic"], table)
    found = [sampler(document("a/1"), Random(seed)) for seed in range(200)]
    assert found == [sampler(document("a/1"), Random(seed)) for seed in range(200)]  # the seed decides
    assert 70 < Counter(found)["a tram"] < 130
    assert set(found) == {"a tram", "a street"}


def test_a_mixture_follows_its_shares(table: CaptionTable) -> None:
    sampler = MixedCaption({"raw": 3, "fused": 1}, table)
    counts = Counter(sampler(document("a/1"), Random(seed)) for seed in range(2000))
    assert counts.keys() == {"Lisbon 28", "Tram 28 in Lisbon."}
    assert 0.71 < counts["Lisbon 28"] / 2000 < 0.79
    assert {sampler(document("b/2"), Random(seed)) for seed in range(20)} == {"img_2"}  # the other was rejected
    assert {MixedCaption({"raw": 1, "synthetic": 1})(document("x", raw="R"), Random(seed)) for seed in range(20)} == {
        "R"
    }
    with pytest.raises(UnusableError, match=r"no raw or fused caption: d/4"):
        sampler(document("d/4"), Random(0))


def test_an_unknown_key(table: CaptionTable) -> None:
    for sampler in (ColumnCaption(FUSED, table), MixedCaption({"raw": 1}, table)):
        with pytest.raises(ValueError, match=r"no row of \S+ has the key 'a/9'; it has 4 rows, 'a/1' for one"):
            sampler(document("a/9"), Random(0))
    other = ColumnCaption(["fused", "raw"], table, otherwise=TextCaption())
    assert [other(document(key), Random(0)) for key in ("a/9", "d/4", "c/3")] == ["own text", "own text", "Faro"]
    assert MixedCaption({"raw": 1}, table, otherwise=TextCaption())(document("a/9"), Random(0)) == "own text"
    assert ("a/1" in table, "a/9" in table, "" in table, len(table)) == (True, False, False, 4)


def test_another_fact_and_other_columns(tmp_path: Path) -> None:
    rows = [{"image_url": "http://b", "laion_2b": "B"}, {"image_url": "http://a", "laion_2b": "A", "capsfusion": "F"}]
    path = str(write_lines(tmp_path / "published.jsonl", rows))
    found = CaptionTable(path, key="image_url", columns={"raw": "laion_2b", "fused": "capsfusion"})
    sampler = ColumnCaption(["fused", "raw"], found, by="url")
    assert [sampler(document("0", url=f"http://{name}"), Random(0)) for name in "ab"] == ["F", "B"]
    rewritten = CaptionTable(path, key="image_url", columns={"rewrite": "capsfusion"})
    assert ColumnCaption(["rewrite"], rewritten, by="url")(document("0", url="http://a"), Random(0)) == "F"


def test_the_first_row_of_a_key_counts_and_rows_without_one_do_not(tmp_path: Path) -> None:
    rows = [{"key": None, "raw": "none"}, {"raw": "no key"}, {"key": "k", "raw": "one"}, {"key": "k", "raw": "two"}]
    for path in (write_lines(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        found = CaptionTable(str(path))
        assert (found.row("k")["raw"], len(found)) == ("one", 2)
    with (tmp_path / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"key": "cut')
    assert len(CaptionTable(str(tmp_path / "a.jsonl"))) == 2


def test_keys_whose_hashes_meet_are_told_apart(table: CaptionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_table, "_hash", lambda key: np.uint64(7))
    same = CaptionTable(table.path)
    assert [same.row(row["key"])["raw"] for row in ROWS] == [row["raw"] for row in ROWS]
    assert "a/9" not in same


def test_it_goes_to_worker_processes(table: CaptionTable) -> None:
    sampler = pickle.loads(pickle.dumps(ColumnCaption(FUSED, table)))
    assert sampler(document("a/1"), Random(0)) == "Tram 28 in Lisbon."


def test_tables_of_csv(tmp_path: Path) -> None:
    text = 'key,raw,synthetic\n1,"one, two","[""a"", ""b""]"\n2,[not json],[3]\n'
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = CaptionTable(str(tmp_path / "t.csv"))
    assert [texts_of(found.row("1"), kind) for kind in ("raw", "synthetic")] == [["one, two"], ["a", "b"]]
    assert [texts_of(found.row("2"), kind) for kind in ("raw", "synthetic")] == [["[not json]"], ["[3]"]]


def test_what_is_refused(tmp_path: Path, table: CaptionTable) -> None:
    path = str(write_lines(tmp_path / "rows.jsonl", [{"key": "a", "raw": "A"}]))
    with pytest.raises(
        ValueError, match=r"data.captions.columns has fuse; it names some of raw, synthetic, rewrite, fused"
    ):
        ColumnCaption(["fuse"])
    with pytest.raises(ValueError, match=r"data.captions.columns has nothing"):
        ColumnCaption([])
    with pytest.raises(ValueError, match=r"data.captions.shares is \{'raw': 0.0\}"):
        MixedCaption({"raw": 0})
    with pytest.raises(ValueError, match=r"rows.jsonl has no column of fused captions; it has raw"):
        ColumnCaption(FUSED, CaptionTable(path))
    with pytest.raises(ValueError, match=r"has no column 'url'; it has key, raw"):
        CaptionTable(path, key="url")
    with pytest.raises(ValueError, match=r"caption_table.columns has 'alt'; known: raw"):
        CaptionTable(path, columns={"alt": "raw"})
    with pytest.raises(FileNotFoundError, match=r"caption_table.path: .*nothing"):
        CaptionTable(str(tmp_path / "nothing.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds no .jsonl"):
        CaptionTable(str(tmp_path / "empty"))
    (tmp_path / "rows.xml").write_text("<a/>", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must end in .jsonl"):
        CaptionTable(str(tmp_path / "rows.xml"))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ValueError, match=r"rows.parquet is damaged or no parquet file"):
        CaptionTable(str(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("policy", ["raw", "synthetic", "rewrite", "mixed", "fused"])
def test_declared_policies(policy: str) -> None:
    sampler = build(compose(None, [f"+caption_policy={policy}"]).caption_policy)
    facts = {"raw": "R", "synthetic": ["S"], "rewrite": "W", "fused": "F", "status": "fused"}
    found = {sampler(document("k", **facts), Random(seed)) for seed in range(30)}
    assert found == {"raw": {"R"}, "synthetic": {"S"}, "rewrite": {"W"}, "mixed": {"R", "S"}, "fused": {"F"}}[policy]
    assert sampler(document("k", raw="R"), Random(0)) == "R"


def test_the_shards_that_fusing_writes(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    with tarfile.open(tmp_path / "u.tar", "w") as tar:
        for number, row in enumerate(ROWS[:1] * 2):
            facts = json.dumps({**row, "key": f"k{number}", "status": "fused"}).encode()
            for suffix, content in (("png", picture.getvalue()), ("txt", b"Tram 28 in Lisbon."), ("json", facts)):
                member = tarfile.TarInfo(f"u-{number:06d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    words = ["data=fused", f"data.train.sources={tmp_path}/*.tar", "data.train.streams=1"]
    for policy, caption in (("fused", "Tram 28 in Lisbon."), ("raw", "Lisbon 28")):
        config = compose("quickstart", [*words, f"caption_policy@data.captions={policy}"])
        sampler = build(config.data.captions)
        found = {document.key: sampler(document, Random(0)) for document in build(config.data.train)}
        assert found == {"k0": caption, "k1": caption}


def test_captions_of_other_pairs_are_looked_up(tmp_path: Path) -> None:
    table = write_lines(tmp_path / "rows.jsonl", [{"url": "http://a", "raw": "R", "fused": "F"}])
    texts = f"data.captions.texts={{type: caption_table, path: {table}, key: url}}"
    words = ["data=webdataset", "data.train.sources=x.tar", "+caption_policy@data.captions=fused", texts]
    config = compose("quickstart", [*words, "data.captions.by=url"])
    assert build(config.data.captions)(document("0001", url="http://a"), Random(0)) == "F"
    emoji = ["+caption_policy@data.captions=raw", "~data.captions.weights", "~data.captions.parts", texts]
    config = compose("quickstart", [*emoji, "data.captions.otherwise={type: text_caption}"])
    assert build(config.data.captions)(document("twemoji/1f600"), Random(0)) == "own text"


def test_an_unknown_key_is_named_where_the_first_file_has_no_key_at_all(tmp_path: Path) -> None:
    write_parquet(tmp_path / "out" / "a.parquet", [{"key": None, "raw": "x"}])
    write_parquet(tmp_path / "out" / "b.PARQUET", [{"key": "b/2", "raw": "y"}])
    table = CaptionTable(str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"has the key 'nobody'; it has 1 rows, 'b/2' for one"):
        table.row("nobody")
