import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from multimodal_zoo.commands.embed import Shards, embed, reader_config

SHARD = 5


def settings(out, **changes):
    plain = {"out": str(out), "shard_size": SHARD, "batch_size": 2, "images": True, "texts": True}
    return OmegaConf.create({**plain, **changes})


def read(shards):
    paths = sorted(shards.out.parent.glob(f"{shards.out.stem}-*{shards.out.suffix}"))
    if shards.out.suffix == ".npz":
        parts = [dict(np.load(path)) for path in paths]
    else:
        from pyarrow import parquet

        tables = [parquet.read_table(path) for path in paths]
        parts = [{n: np.array(t[n].to_pylist()) for n in t.column_names} for t in tables]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture
def whole(model, processor):
    model.processor = processor
    return model


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("count", [5, 13, 15, 16])
def test_every_row_once_and_equal_to_the_model(whole, squares, cpu, tmp_path, suffix, count):
    reader = squares()
    reader.items = reader.items[:count]
    shards = Shards.open(settings(tmp_path / f"e.{suffix}"))
    assert embed(whole, reader, shards, 2, cpu) == count
    found = read(shards)
    assert found["index"].tolist() == list(range(count))
    assert found["key"].tolist() == [document.key for document in reader.items]
    assert found["text"].tolist() == [document.text for document in reader.items]
    whole.eval()
    with torch.no_grad():
        images = whole.encode_image(whole.processor.images([d.image for d in reader.items]))
        texts = whole.encode_text(whole.processor.texts([d.text for d in reader.items]))
    np.testing.assert_allclose(found["image_embedding"], images.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["text_embedding"], texts.numpy(), rtol=1e-5, atol=1e-6)
    assert json.loads(shards.manifest.read_text())["documents"] == count


def test_finished_shards_are_skipped_and_missing_ones_made(whole, squares, cpu, tmp_path):
    shards = Shards.open(settings(tmp_path / "e.npz"))
    embed(whole, squares(), shards, 2, cpu)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    expected = read(shards)
    shards.path(1).unlink()
    embed(whole, squares(), shards, 4, cpu)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert {name for name in after if after[name] != before[name]} == {"e-00001.npz"}
    for name, values in read(shards).items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
        else:
            assert values.tolist() == expected[name].tolist()


def test_a_change_of_the_data_is_noticed(whole, squares, cpu, tmp_path):
    shards = Shards.open(settings(tmp_path / "e.npz"))
    embed(whole, squares(), shards, 2, cpu)
    with pytest.raises(ValueError, match="24 documents now, 16 when"):
        embed(whole, squares(shades=3), shards, 2, cpu)


def test_images_or_texts_alone(whole, squares, cpu, tmp_path):
    for name, chosen in (("a", {"texts": False}), ("b", {"images": False})):
        shards = Shards.open(settings(tmp_path / f"{name}.npz"))
        embed(whole, squares(), shards, 2, cpu, **chosen)
        assert len(read(shards)) == 4


def test_manifest_belongs_to_weights_data_and_settings(whole, tmp_path):
    shards = Shards.open(settings(tmp_path / "e.npz"))
    shards.claim({"type": "x"}, True, True, whole)
    shards.claim({"type": "x"}, True, True, whole)
    with pytest.raises(ValueError, match="other data; choose another out"):
        shards.claim({"type": "y"}, True, True, whole)
    with torch.no_grad():
        whole.colour.weight.add_(1)
    with pytest.raises(ValueError, match="other weights"):
        shards.claim({"type": "x"}, True, True, whole)


def test_errors(whole, squares, cpu, tmp_path):
    with pytest.raises(ValueError, match=r"must end in .parquet or .npz"):
        Shards.open(settings(tmp_path / "e.csv"))
    with pytest.raises(ValueError, match="both are false"):
        Shards.open(settings(tmp_path / "e.npz", images=False, texts=False))
    with pytest.raises(ValueError, match="must be 1 or more"):
        Shards.open(settings(tmp_path / "e.npz", shard_size=0))
    with pytest.raises(ValueError, match="no usable"):
        embed(whole, squares(shades=0), Shards.open(settings(tmp_path / "e.npz")), 2, cpu)
    with pytest.raises(ValueError, match="needs a reader"):
        reader_config(OmegaConf.create({"batch_size": 3}))
    assert reader_config(OmegaConf.create({"type": "m", "train": {"type": "r"}})) == {"type": "r"}


KILLED = """
import importlib.util, os, sys, torch
from pathlib import Path
spec = importlib.util.spec_from_file_location("standins", sys.argv[1])
standins = importlib.util.module_from_spec(spec)
spec.loader.exec_module(standins)
from multimodal_zoo.commands import embed as command

torch.manual_seed(0)
model = standins.TinyModel()
model.processor = standins.TinyProcessor()
write, left = command._write_npz, [int(sys.argv[3])]

def dying(path, columns):
    if not left[0]:
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), 9)
    left[0] -= 1
    write(path, columns)

command.WRITERS[".npz"] = dying
shards = command.Shards(Path(sys.argv[2]), 5)
command.embed(model, standins.Squares(), shards, 2, torch.device("cpu"))
"""


@pytest.mark.multiprocess
def test_killed_while_writing_and_started_again(whole, squares, cpu, tmp_path):
    out, plain = tmp_path / "killed.npz", tmp_path / "plain.npz"
    standins = Path(__file__).parent / "conftest.py"

    command = [sys.executable, "-c", KILLED, str(standins), str(out), "2"]
    assert subprocess.run(command, timeout=120, check=False).returncode == -9
    assert len(list(tmp_path.glob("killed-*.npz"))) == 2
    torch.manual_seed(0)
    model = type(whole)()
    model.processor = whole.processor
    embed(model, squares(), Shards(out, 5), 2, cpu)
    embed(model, squares(), Shards(plain, 5), 2, cpu)
    expected, found = read(Shards(plain, 5)), read(Shards(out, 5))
    assert found["key"].tolist() == expected["key"].tolist()
    np.testing.assert_array_equal(found["image_embedding"], expected["image_embedding"])
    np.testing.assert_array_equal(found["text_embedding"], expected["text_embedding"])
