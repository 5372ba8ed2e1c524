"""Searching a folder of embeddings, and the two commands together."""

from __future__ import annotations

import json
import tarfile
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.cli import main
from multimodal_zoo.commands.retrieve import Options, parse, read_queries
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder
from multimodal_zoo.evaluation.nearest import SEARCHES, Hit, nearest, search_shards
from multimodal_zoo.evaluation.searching import find_pictures
from multimodal_zoo.evaluation.shard_files import write_shard


def unit(rows, width, seed=0):
    found = np.random.default_rng(seed).standard_normal((rows, width), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def brute_force(queries, rows, count):
    scores = queries @ rows.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, best, 1), best


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("count", [1, 7, 200])
def test_blocks_give_what_one_matrix_gives(search, count):
    rows, queries = unit(150, 16), unit(5, 16, seed=1)
    scores, numbers = nearest(queries, np.array_split(rows, [1, 40, 41, 120]), count, search)
    expected, places = brute_force(queries, rows, count)
    np.testing.assert_array_equal(numbers, places)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_equal_rows_come_in_their_order():
    rows = np.tile(unit(1, 8), (30, 1))
    _, numbers = nearest(rows[:1], np.array_split(rows, 3), 30, "torch")
    assert numbers[0].tolist() == list(range(30))


def test_bad_searches():
    with pytest.raises(ValueError, match="have width 4, the embeddings 8"):
        nearest(unit(1, 4), [unit(3, 8)], 1, "torch")
    with pytest.raises(ValueError, match="choose one of torch, faiss"):
        nearest(unit(1, 4), [unit(3, 4)], 1, "annoy")


def folder_of(path, rows, size, suffix="npz", dtype="float32"):
    for number, first in enumerate(range(0, len(rows), size)):
        part = rows[first : first + size]
        keys = [f"k{first + n}" for n in range(len(part))]
        columns = {"key": keys, "text": keys, "image_embedding": part.astype(dtype)}
        place = np.arange(first, first + len(part))[:, None]
        write_shard(path / f"000-{number:05d}.{suffix}", {**columns, "place": place}, {"end": [first]})
    return sorted(path.glob(f"*.{suffix}"))


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_hits_name_their_documents(tmp_path, suffix, dtype):
    rows, queries = unit(300, 32), unit(3, 32, seed=1)
    shards = folder_of(tmp_path, rows, 64, suffix, dtype)
    found = search_shards(queries, shards, "image_embedding", 5, "torch")
    scores, places = brute_force(queries, rows.astype(dtype).astype(np.float32), 5)
    assert [[hit.key for hit in hits] for hits in found] == [[f"k{n}" for n in row] for row in places]
    assert [[hit.place for hit in hits] for hits in found] == [[(n,) for n in row] for row in places]
    np.testing.assert_allclose([[hit.score for hit in hits] for hits in found], scores, atol=2e-6)
    with pytest.raises(ValueError, match="has no column 'text_embedding'"):
        search_shards(queries, shards, "text_embedding", 5, "torch")


def test_memory_does_not_grow_with_the_folder(tmp_path):
    rows = unit(100_000, 64)  # 25.6 MB
    shards = folder_of(tmp_path, rows, 4096)
    query = unit(1, 64, seed=1)
    expected, places = brute_force(query, rows, 10)
    tracemalloc.start()
    start = time.perf_counter()
    found = search_shards(query, shards, "image_embedding", 10, "torch")
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [hit.key for hit in found[0]] == [f"k{n}" for n in places[0]]
    np.testing.assert_allclose([hit.score for hit in found[0]], expected[0], atol=2e-6)
    assert peak < 8 * 2**20  # a few shards of 1 MiB, not the 25.6 MB of all
    assert seconds < 30


def test_words_and_options(tmp_path):
    assert parse(["f", "a cat", "k=3", "json=true"]) == (["f", "a cat"], Options(k=3, json=True))
    assert parse(["f", "E = mc2"])[0] == ["f", "E = mc2"]
    for words, message in (
        (["f", "kk=3"], "no option 'kk'; there are queries, k"),
        (["f", "k=some"], "k=some: expected a whole number"),
        (["f", "k=0"], "expected 1 match or more"),
        (["f", "grid=yes"], "expected true or false"),
        (["f", "against=sounds"], "expected images or texts"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(words)
    (tmp_path / "q.txt").write_text("one\n\ntwo \n")
    assert read_queries(["zero"], str(tmp_path / "q.txt")) == ["zero", "one", "two"]
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(ValueError, match="there is no query in it"):
        read_queries([], str(tmp_path / "none.txt"))
    with pytest.raises(FileNotFoundError, match="one query a line"):
        read_queries([], str(tmp_path / "absent.txt"))
    with pytest.raises(FileNotFoundError, match="no such picture"):
        read_queries([str(tmp_path / "absent.png")], None)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of nine emoji with their names, and the same in two tar shards."""
    folder = tmp_path_factory.mktemp("pictures")
    emoji = EmojiPairs(styles=["twemoji"], splits=["val"], image_size=72)
    for n in range(9):
        Image.fromarray(emoji[n * 5].image).save(folder / f"{n}.png")
        (folder / f"{n}.txt").write_text(emoji[n * 5].text)
    for number, members in enumerate((range(5), range(5, 9))):
        with tarfile.open(folder.parent / f"{folder.name}-{number}.tar", "w") as tar:
            for n in members:
                for suffix in ("png", "txt"):
                    tar.add(folder / f"{n}.{suffix}", f"{n}.{suffix}")
    return folder


def embed(*words):
    return main(["embed", "clip_tiny", *map(str, words), "allow_random=true", "batch_size=4", "format=npz"])


def test_embed_and_retrieve(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert embed(pictures, "out=made", "shard_size=4") == 0
    assert "9 documents in 3 files" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "made/manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["counts"] == {"images": 9, "texts": 9}
    assert manifest["data"]["folder"] == str(pictures)

    query = str(pictures / "7.png")
    assert main(["retrieve", "made", "a red heart", query, "k=3", "json=true"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [len(answer["matches"]) for answer in said["answers"]] == [3, 3]
    best = said["answers"][1]["matches"][0]
    assert best["key"] == "7.png"
    assert best["score"] == pytest.approx(1.0, abs=1e-5)
    assert (tmp_path / "retrieved.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "retrieved.json").read_text()) == said

    assert main(["retrieve", "made", "a red heart", query, "k=3", "search=faiss", "out=faiss", "grid=false"]) == 0
    same = json.loads((tmp_path / "faiss.json").read_text())
    keys = [[[match["key"] for match in a["matches"]] for a in told["answers"]] for told in (said, same)]
    assert keys[0] == keys[1]
    name = (pictures / "3.txt").read_text()
    assert main(["retrieve", "made", name, "against=texts", "k=2", "grid=false", "out=texts"]) == 0
    assert json.loads((tmp_path / "texts.json").read_text())["answers"][0]["matches"][0]["key"] == "3.png"
    assert not (tmp_path / "texts.png").exists()
    assert "3.png" in capsys.readouterr().out

    with pytest.raises(SystemExit):
        embed(pictures, "out=made", "shard_size=5")
    assert "written with other shard_size" in capsys.readouterr().err
    assert main(["retrieve", "made"]) == 1
    assert "needs a folder of embeddings and a query" in capsys.readouterr().err


def test_pictures_of_sixteen_bits_and_broken_queries(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "deep"
    folder.mkdir()
    Image.fromarray(np.full((40, 40), 20000, np.uint16)).save(folder / "deep.png")
    (tmp_path / "broken.png").write_bytes(b"")
    assert embed(folder, "out=made") == 0
    _, manifest = EmbeddingFolder.open("made")
    drawn = find_pictures(manifest, [[Hit(1.0, "deep.png", "", "", (0,))]])[0][0].picture
    assert np.asarray(drawn).max() == 20000 // 256  # not clipped to white
    assert main(["retrieve", "made", "broken.png"]) == 1
    assert "the query broken.png cannot be used: broken image" in capsys.readouterr().err
    assert main(["retrieve", "made", ""]) == 1
    assert "the query is empty" in capsys.readouterr().err


def test_another_model_is_refused(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert embed(pictures, "out=made", "texts=false") == 0
    manifest = json.loads((tmp_path / "made/manifest.json").read_text())
    assert main(["retrieve", "made", "x", "against=texts"]) == 1
    assert "was made without texts" in capsys.readouterr().err
    manifest["model"]["model"]["image"]["channels"] = [48, 96, 96]
    manifest["model"]["model"]["image"]["width"] = 96
    manifest["model"]["model"]["image_projection"]["width"] = 96
    (tmp_path / "made/manifest.json").write_text(json.dumps(manifest))
    assert main(["retrieve", "made", "x"]) == 1
    assert "other weights (fingerprint" in capsys.readouterr().err
    (tmp_path / "made/manifest.json").write_text("{}")
    assert main(["retrieve", "made", "x"]) == 1
    assert "does not describe embeddings" in capsys.readouterr().err


def test_tars_tables_and_texts(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pattern = str(pictures.parent / (pictures.name + "-{0..1}.tar"))
    assert embed(pattern, "out=tars", "shard_size=4") == 0
    assert main(["retrieve", "tars", str(pictures / "6.png"), "k=1", "json=true"]) == 0
    (best,) = json.loads((tmp_path / "retrieved.json").read_text())["answers"][0]["matches"]
    assert best["place"] == [1, 1]
    assert best["shard"].endswith("-1.tar")
    (pictures / "table.csv").write_text("file,caption\n" + "".join(f"{n}.png,number {n}\n" for n in range(3)))
    assert embed(pictures / "table.csv", "out=table") == 0
    (tmp_path / "words.txt").write_text("one\ntwo\nthree\n")
    assert embed(tmp_path / "words.txt", "out=words") == 0
    manifest = json.loads((tmp_path / "words/manifest.json").read_text())
    assert manifest["counts"] == {"images": 0, "texts": 3}
    assert main(["retrieve", "words", "three", "k=1"]) == 0  # no pictures: tiles with the texts
    assert json.loads((tmp_path / "retrieved.json").read_text())["answers"][0]["matches"][0]["text"] == "three"


def test_of_equal_scores_the_earlier_row_is_found() -> None:
    rows = np.tile(unit(1, 4), (5000, 1))
    rows[4000] = -rows[4000]
    scores, numbers = nearest(np.vstack([rows[:1], -rows[:1]]), [rows], 3, "torch")
    assert numbers.tolist() == [[0, 1, 2], [4000, 0, 1]]
    assert np.allclose(scores, [[1, 1, 1], [1, -1, -1]])
