import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from multimodal_zoo.commands.embed import open_folder, reader_config, report
from multimodal_zoo.data.folder_pairs import FolderPairs
from multimodal_zoo.data.folder_pictures import FolderPictures
from multimodal_zoo.data.places import in_order
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.evaluation.embedding import Settings, embed, settle
from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder
from multimodal_zoo.evaluation.shard_files import read_about, read_columns, write_shard

SHARD = 5
COLUMNS = ("key", "text", "shard", "place", "image_embedding", "text_embedding")
SETTINGS = Settings(images=True, texts=True, shard_size=SHARD, batch_size=2)


def read(folder):
    parts = [read_columns(path, COLUMNS) for path in folder.shards()]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def made(path, model, reader, cpu, settings=SETTINGS, suffix="npz", rank=0, ranks=1):
    """Embed a reader and give the folder and its manifest."""
    folder = EmbeddingFolder(path, suffix, rank, ranks)
    folder.claim({"format": suffix, "weights": "w", "ranks": ranks, "data": {}}, {"model": {}})
    return folder, embed(model, in_order(reader, rank, ranks), folder, settings, cpu)


@pytest.fixture
def whole(model, processor):
    model.processor = processor
    return model


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("count", [1, 5, 13, 15, 16])
def test_every_row_once_and_equal_to_the_model(whole, squares, cpu, tmp_path, suffix, count):
    reader = squares()
    reader.items = reader.items[:count]
    folder, manifest = made(tmp_path / "e", whole, reader, cpu, suffix=suffix)
    found = read(folder)
    assert found["place"].tolist() == [[n] for n in range(count)]
    assert found["key"].tolist() == [document.key for document in reader.items]
    assert found["text"].tolist() == [document.text for document in reader.items]
    whole.eval()
    with torch.no_grad():
        images = whole.encode_image(whole.processor.images([d.image for d in reader.items]))
        texts = whole.encode_text(whole.processor.texts([d.text for d in reader.items]))
    np.testing.assert_allclose(found["image_embedding"], images.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["text_embedding"], texts.numpy(), rtol=1e-5, atol=1e-6)
    assert manifest["complete"]
    assert manifest["documents"] == count
    assert manifest["counts"] == {"images": count, "texts": count}
    assert set(manifest["per_second"]) == {"images", "texts"}


def test_the_speed_of_a_moment_is_known_too(whole, squares, cpu, tmp_path, monkeypatch):
    ticks = iter(n * 1e-5 for n in range(1000))
    monkeypatch.setattr("multimodal_zoo.evaluation.throughput.time.perf_counter", lambda: next(ticks))
    _, manifest = made(tmp_path / "e", whole, squares(), cpu, Settings(True, True, SHARD, SHARD))
    assert all(speed > 1e4 for speed in manifest["per_second"].values())
    assert set(manifest["per_second"]) == {"images", "texts"}


def test_half_precision_is_stored_rounded(whole, squares, cpu, tmp_path):
    single, _ = made(tmp_path / "a", whole, squares(), cpu)
    for suffix in ("npz", "parquet"):
        half, _ = made(
            tmp_path / suffix, whole, squares(), cpu, Settings(True, True, SHARD, 2, dtype="float16"), suffix
        )
        found = read(half)["image_embedding"]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, read(single)["image_embedding"].astype(np.float16))


def test_finished_shards_are_left_alone_and_missing_ones_made(whole, squares, cpu, tmp_path):
    folder, manifest = made(tmp_path, whole, squares(), cpu)
    before = {path.name: path.stat().st_mtime_ns for path in folder.shards()}
    expected = read(folder)
    folder.shard(1).unlink()
    _, again = made(tmp_path, whole, squares(), cpu, Settings(True, True, SHARD, 4))
    after = {path.name: path.stat().st_mtime_ns for path in folder.shards()}
    assert {name for name in after if after[name] != before[name]} == {"000-00001.npz"}
    assert again["documents"] == manifest["documents"]
    for name, values in read(folder).items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
        else:
            assert values.tolist() == expected[name].tolist()


def test_a_finished_folder_is_not_computed_again(whole, squares, cpu, tmp_path):
    _, manifest = made(tmp_path, whole, squares(), cpu)
    whole.encode_image = None
    assert made(tmp_path, whole, squares(), cpu)[1] == manifest


def test_a_shard_of_another_run_is_noticed(whole, squares, cpu, tmp_path):
    folder, _ = made(tmp_path, whole, squares(), cpu)
    (tmp_path / "rank-000.json").unlink()
    columns, about = read_columns(folder.shard(1), COLUMNS), read_about(folder.shard(1))
    write_shard(folder.shard(1), columns, {**about, "after": [7]})
    with pytest.raises(ValueError, match=r"000-00001.npz does not continue the shard before it"):
        made(tmp_path, whole, squares(), cpu)
    folder.shard(1).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"000-00001.npz is damaged or no shard of embeddings"):
        made(tmp_path, whole, squares(), cpu)


def test_images_or_texts_alone(whole, squares, cpu, tmp_path):
    for name, images in (("a", True), ("b", False)):
        folder, manifest = made(tmp_path / name, whole, squares(), cpu, Settings(images, not images, SHARD, 2))
        assert set(read(folder)) == {"key", "text", "place", f"{'image' if images else 'text'}_embedding"}
        assert manifest["counts"] == {"images": 16 * images, "texts": 16 * (not images)}


def png(path, value, size=6):
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)


def test_pictures_that_break_half_way_are_counted_and_cost_nobody_else(whole, cpu, tmp_path):
    whole.processor.images = ImageTransform(6, [0.5] * 3, [0.5] * 3)
    source = tmp_path / "pictures"
    (source / "deeper").mkdir(parents=True)
    (source / ".hidden").mkdir()
    for n in range(12):
        png(source / f"{n:02d}.png", 20 * n)
        (source / f"{n:02d}.txt").write_text(f"number {n}")
    png(source / "deeper" / "z.png", 7)
    png(source / ".hidden" / "no.png", 7)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for n in range(3, 9):  # a whole shard of pictures whose headers are good
        Image.fromarray(noise).save(source / f"{n:02d}.png", "JPEG")
        content = (source / f"{n:02d}.png").read_bytes()
        (source / f"{n:02d}.png").write_bytes(content[: len(content) // 2])
    good = [0, 1, 2, 9, 10, 11]
    reader = FolderPictures(str(source), need_caption=False)
    assert len(reader) == 13
    settings = Settings(True, True, 3, 2)
    folder, manifest = made(tmp_path / "e", whole, reader, cpu, settings)
    assert read(folder)["key"].tolist() == [f"{n:02d}.png" for n in good]
    assert manifest["skipped"] == {"broken image": 6, "missing caption": 1}
    assert manifest["skipped_examples"]["missing caption"] == ["deeper/z.png"]
    assert manifest["skipped_examples"]["broken image"] == ["03.png", "04.png", "05.png"]
    folder.shard(1).unlink()
    assert made(tmp_path / "e", whole, FolderPictures(str(source), False), cpu, settings)[1]["skipped"] == {
        "broken image": 6,
        "missing caption": 1,
    }
    images = settle(Settings(texts=False), in_order(FolderPictures(str(source), False)))
    assert made(tmp_path / "images", whole, FolderPictures(str(source), False), cpu, images)[1]["documents"] == 7
    assert [document.key for document in FolderPictures(str(source / "deeper"), need_caption=False)] == ["z.png"]
    with pytest.raises(FileNotFoundError, match="no picture"):
        FolderPictures(str(tmp_path / "nowhere"))


def test_examples_of_one_reason_add_up_over_shards(whole, cpu, tmp_path, capsys):
    whole.processor.images = ImageTransform(6, [0.5] * 3, [0.5] * 3)
    source = tmp_path / "pictures"
    source.mkdir()
    for n in range(6):
        png(source / f"{n}.png", 20 * n)
    for n in (0, 4):
        (source / f"{n}.png").write_bytes((source / f"{n}.png").read_bytes()[:40])
    reader = FolderPictures(str(source), need_caption=False)
    folder, manifest = made(tmp_path / "e", whole, reader, cpu, Settings(True, False, 2, 2))
    assert manifest["skipped_examples"] == {"broken image": ["0.png", "4.png"]}
    report(manifest, folder)
    printed = capsys.readouterr().out
    assert "2 skipped: broken image 2 (0.png, 4.png)" in printed
    report({**manifest, "documents": 1, "shards": 1}, folder)
    assert "1 document in 1 file, " in capsys.readouterr().out


def test_what_the_first_document_has_is_embedded(squares, tmp_path):
    assert settle(Settings(), in_order(squares(captions=0))).texts is False
    assert settle(Settings(), in_order(squares())) == Settings(images=True, texts=True)
    assert settle(Settings(images=False), in_order(squares())).images is False
    with pytest.raises(ValueError, match="the first document has no texts"):
        settle(Settings(images=False), in_order(squares(captions=0)))
    with pytest.raises(ValueError, match="no usable document: it is empty"):
        settle(Settings(), in_order(squares(shades=0)))
    (tmp_path / "lines.txt").write_text("one\n\ntwo\n")
    texts = FolderPairs(str(tmp_path / "lines.txt"), str(tmp_path), None, "text")
    assert settle(Settings(), in_order(texts)) == Settings(images=False, texts=True)
    assert [document.text for document in texts] == ["one", "two"]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_documents_and_the_last_completes_the_manifest(whole, squares, cpu, tmp_path, ranks):
    for rank in reversed(range(ranks)):
        folder, manifest = made(tmp_path, whole, squares(), cpu, rank=rank, ranks=ranks)
        assert manifest["complete"] is (rank == 0)
    assert manifest["documents"] == 16
    found = read(folder)
    assert sorted(found["key"].tolist()) == sorted(document.key for document in squares().items)
    assert {path.name[:3] for path in folder.shards()} == {f"{rank:03d}" for rank in range(ranks)}


def test_manifest_belongs_to_weights_data_and_settings(tmp_path):
    folder = EmbeddingFolder(tmp_path, "npz")
    folder.claim({"data": {"type": "x"}, "weights": "a"}, {"note": 1})
    folder.claim({"data": {"type": "x"}, "weights": "a"}, {"note": 2})
    assert json.loads((tmp_path / "manifest.json").read_text())["note"] == 1
    with pytest.raises(ValueError, match="written with other data; choose another out"):
        folder.claim({"data": {"type": "y"}, "weights": "a"}, {})
    with pytest.raises(ValueError, match="other data, weights"):
        folder.claim({"data": {"type": "y"}, "weights": "b"}, {})
    write_shard(folder.shard(0), {"key": ["a"]}, {})
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="shards but no manifest"):
        folder.claim({"data": {}}, {})
    (tmp_path / "manifest.json").write_text("{half")
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        folder.claim({"data": {}}, {})


def test_errors(tmp_path):
    plain = {"out": str(tmp_path / "e"), "format": "npz", "rank": 0, "ranks": 1}

    def opened(**changes):
        return open_folder(OmegaConf.create({**plain, **changes}))

    assert opened().suffix == "npz"
    with pytest.raises(ValueError, match="must be a folder"):
        opened(out=str(tmp_path / "e.npz"))
    with pytest.raises(ValueError, match="choose parquet or npz"):
        opened(format="csv")
    with pytest.raises(ValueError, match="ranks count from 0"):
        opened(rank=2, ranks=2)
    with pytest.raises(ValueError, match="both are false"):
        Settings(images=False, texts=False)
    with pytest.raises(ValueError, match="must be 1 or more"):
        Settings(shard_size=0)
    with pytest.raises(ValueError, match="choose one of float32, float16"):
        Settings(dtype="bfloat16")
    with pytest.raises(ValueError, match="needs a reader"):
        reader_config(OmegaConf.create({"batch_size": 3}))
    with pytest.raises(ValueError, match="give a folder of pictures"):
        reader_config(None)
    assert reader_config(OmegaConf.create({"type": "m", "train": {"type": "r"}})) == {"type": "r"}
    with pytest.raises(FileNotFoundError, match="holds no manifest"):
        EmbeddingFolder.open(tmp_path)


KILLED = """
import importlib.util, os, sys, torch
from pathlib import Path
spec = importlib.util.spec_from_file_location("standins", sys.argv[1])
standins = importlib.util.module_from_spec(spec)
spec.loader.exec_module(standins)
from multimodal_zoo.data.places import in_order
from multimodal_zoo.evaluation import embedding, embedding_folder, shard_files

torch.manual_seed(0)
model = standins.TinyModel()
model.processor = standins.TinyProcessor()
plain, left = shard_files.FORMATS["npz"], [int(sys.argv[3])]

def dying(path, columns, about):
    if not left[0]:
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), 9)
    left[0] -= 1
    plain.write(path, columns, about)

shard_files.FORMATS["npz"] = plain._replace(write=dying)
folder = embedding_folder.EmbeddingFolder(Path(sys.argv[2]), "npz")
folder.claim({"format": "npz", "weights": "w", "ranks": 1, "data": {}}, {"model": {}})
settings = embedding.Settings(images=True, texts=True, shard_size=5, batch_size=2)
embedding.embed(model, in_order(standins.Squares()), folder, settings, torch.device("cpu"))
"""


@pytest.mark.multiprocess
def test_killed_while_writing_and_started_again(whole, squares, cpu, tmp_path):
    standins = Path(__file__).parent / "conftest.py"
    command = [sys.executable, "-c", KILLED, str(standins), str(tmp_path / "killed"), "2"]
    assert subprocess.run(command, timeout=120, check=False).returncode == -9
    half = [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]
    assert len(half) == 1
    torch.manual_seed(0)
    model = type(whole)()
    model.processor = whole.processor
    seen = []

    class Watched(squares):
        def __getitem__(self, number):
            seen.append(number)
            return super().__getitem__(number)

    killed, _ = made(tmp_path / "killed", model, Watched(), cpu)
    assert min(seen) == 10  # what stands in finished shards is not even read
    plain, _ = made(tmp_path / "plain", model, squares(), cpu)
    assert not half[0].exists()
    assert [path.name for path in killed.shards()] == [path.name for path in plain.shards()]
    expected, found = read(plain), read(killed)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
