"""Captioners with small random models of both kinds: batches, prompts, the manifest, and captions in `mmzoo fuse`."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multimodal_zoo as zoo
from multimodal_zoo.captions.captioners import LocalCaptioner
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.registry import build

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a picture of dog cat red blue runs sits on the mat sky"
NAMES = WORDS.split()
SIZES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SEEN: dict[str, Any] = {**SIZES, "image_size": 32, "patch_size": 16}
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    drawn = np.random.default_rng(0)
    sizes = [(40, 60), (32, 32), (64, 20), (30, 30)]
    return [Image.fromarray(drawn.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def far_from_uniform(model: Any) -> None:
    """Larger weights, so that rounding decides nothing."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(30)


@pytest.fixture(scope="module", params=["blip", "git"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp(request.param)
    (place / "vocab.txt").write_text("\n".join(NAMES))
    tokenizer = transformers.BertTokenizer(str(place / "vocab.txt"))
    if request.param == "blip":
        text = {**SIZES, **ENDS, "encoder_hidden_size": 16, "sep_token_id": 3, "projection_dim": 16}
        text |= {"vocab_size": len(NAMES), "max_position_embeddings": 64}
        sizes = {"projection_dim": 16, "image_text_hidden_size": 16}
        config = transformers.BlipConfig(text_config=text, vision_config=SEEN, **sizes)
        model = transformers.BlipForConditionalGeneration(config)
        reader = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
        transformers.BlipProcessor(reader, tokenizer).save_pretrained(place)
    else:
        config = transformers.GitConfig(
            vision_config=SEEN, vocab_size=len(NAMES), max_position_embeddings=64, **SIZES, **ENDS
        )
        model = transformers.GitForCausalLM(config)
        reader = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        transformers.GitProcessor(reader, tokenizer).save_pretrained(place)
    far_from_uniform(model)
    model.save_pretrained(place)
    return place


def transformers_captioner(folder: Path, **others: Any) -> Any:
    return build({"type": "transformers_captioner", "model": str(folder), "max_new_tokens": 6, **others})


def test_captions_do_not_depend_on_the_batch(folder: Path, pictures: list[Image.Image]) -> None:
    for prompt in ("", "a picture of"):
        captioner = transformers_captioner(folder, prompt=prompt)
        found = captioner.caption(pictures)
        assert found == [captioner.caption([one])[0] for one in pictures]
        assert found == transformers_captioner(folder, prompt=prompt, batch_size=3).caption(pictures)
        assert any(found)
        assert not any(text.startswith("a picture of") for text in found)  # what is new alone
    assert captioner.caption([]) == []


def test_captions_are_those_of_transformers(folder: Path, pictures: list[Image.Image]) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    seen = processor.image_processor(images=pictures[0], return_tensors="pt")
    for beams in (1, 2):
        with torch.no_grad():
            ids = model.generate(**seen, max_new_tokens=6, num_beams=beams, do_sample=False)
        expected = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        assert transformers_captioner(folder, beams=beams).caption(pictures[:1]) == [" ".join(expected[0].split())]


def test_the_manifest_and_bad_values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = transformers_captioner(folder, when="always").describe()
    assert facts["captioner"] == "transformers_captioner"
    assert (facts["when"], facts["max_new_tokens"], len(facts["fingerprint"])) == ("always", 6, 64)
    assert json.loads(json.dumps(facts)) == facts
    for wrong in ({"when": "never"}, {"batch_size": 0}, {"beams": 0}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match=f"captioner.{next(iter(wrong))}"):
            transformers_captioner(folder, **wrong)
    with pytest.raises(ValueError, match=r"captioner\.model is .*config\.json"):
        transformers_captioner(folder.parent)
    captioner = transformers_captioner(folder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'multimodal_zoo\[captions\]'"):
        captioner.caption([Image.new("RGB", (8, 8))])


def test_little_memory_makes_smaller_batches() -> None:
    sizes: list[int] = []

    def write(images: Sequence[Image.Image]) -> list[str]:
        sizes.append(len(images))
        if len(images) > 2:
            raise MemoryError
        return [f" {image.width} \n wide" for image in images]

    captioner = LocalCaptioner(lambda: write, {"model": "x"}, 5, "missing")
    pictures = [Image.new("RGB", (width, 1)) for width in range(1, 8)]
    assert captioner.caption(pictures) == [f" {width} \n wide" for width in range(1, 8)]
    assert sizes == [5, 3, 2, 2, 2, 1]
    captioner.close()
    captioner.close()
    with pytest.raises(RuntimeError, match="closed"):
        captioner.caption(pictures)

    def nothing(images: Sequence[Image.Image]) -> list[str]:
        raise MemoryError

    with pytest.raises(MemoryError, match="single picture"):
        LocalCaptioner(lambda: nothing, {}, 2, "missing").caption(pictures)


@pytest.fixture(scope="module")
def emu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Emu with weights that count as trained."""
    import torch

    torch.manual_seed(0)
    model: Any = zoo.create("emu2_tiny", overrides=["model.decoder.blocks.depth=1"])
    model.decoder.output.weight.data.mul_(8)
    model.weights = "made for a test"
    place = tmp_path_factory.mktemp("emu") / "model"
    save_model(model, place)
    return place


def test_our_own_models(emu: Path, pictures: list[Image.Image]) -> None:
    from multimodal_zoo.data.documents import Document, Text
    from multimodal_zoo.data.documents import Image as Picture
    from multimodal_zoo.inference.chat import answer

    config = {"type": "zoo_captioner", "model": str(emu), "max_new_tokens": 5, "batch_size": 3}
    captioner = build(config)
    found = captioner.caption(pictures)
    assert found == [captioner.caption([one])[0] for one in pictures]
    model = zoo.from_pretrained(emu)
    expected = answer(model, [Document([Picture(one)]) for one in pictures], max_new_tokens=5, special=False)
    assert found == [" ".join(text.split()) for text in expected]
    asked = Document([Picture(pictures[0]), Text("What?", role="user"), Text("It is", role="assistant")])
    said = build({**config, "question": "What?", "opening": "It is"}).caption(pictures[:1])
    assert said == [" ".join(answer(model, asked, max_new_tokens=5, special=False)[0].split())]
    assert captioner.describe()["fingerprint"] == build(config).describe()["fingerprint"]


@pytest.mark.parametrize("name", ["eve_tiny", "emu3_tiny"])
def test_our_other_models(name: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    import torch

    from multimodal_zoo.data.documents import Document, Text
    from multimodal_zoo.data.documents import Image as Picture
    from multimodal_zoo.inference.chat import answer

    torch.manual_seed(0)
    model: Any = zoo.create(name, overrides=["model.decoder.blocks.depth=1"])
    model.weights = "made for a test"
    save_model(model, tmp_path / "model")
    config = {"type": "zoo_captioner", "model": str(tmp_path / "model"), "question": "a dog", "max_new_tokens": 5}
    found = build(config).caption(pictures[:2])
    asked = [Document([Picture(one), Text("a dog", role="user")]) for one in pictures[:2]]
    said = answer(zoo.from_pretrained(tmp_path / "model"), asked, max_new_tokens=5, special=False)
    assert found == [" ".join(text.split()) for text in said]
    assert any(found)
    captioner = build(config)
    assert found == [captioner.caption([one])[0] for one in pictures[:2]]


def test_random_weights_and_other_models_are_refused(tmp_path: Path) -> None:
    save_model(zoo.create("emu2_tiny", overrides=["model.decoder.blocks.depth=1"]), tmp_path / "random")
    save_model(zoo.create("clip_tiny"), tmp_path / "clip")
    picture = [Image.new("RGB", (8, 8))]
    with pytest.raises(ValueError, match=r"captioner\.model: the weights of .* are random"):
        build({"type": "zoo_captioner", "model": str(tmp_path / "random")}).caption(picture)
    with pytest.raises(TypeError, match=r"captioner\.model needs an Emu3"):
        build({"type": "zoo_captioner", "model": str(tmp_path / "clip")})


def put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def test_fuse_captions_pictures_first(emu: Path, tmp_path: Path, pictures: list[Image.Image]) -> None:
    from multimodal_zoo.captions.unit_reading import read_units
    from multimodal_zoo.cli import main

    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/00000.tar", "w") as tar:
        for number, picture in enumerate(pictures[:3]):
            encoded = io.BytesIO()
            picture.save(encoded, "png")
            given = {"synthetic": "a known thing"} if number == 1 else {}
            put(tar, f"{number}.png", encoded.getvalue())
            put(tar, f"{number}.txt", f"Web words {number}".encode())
            put(
                tar,
                f"{number}.json",
                json.dumps({"key": f"k{number}", "caption": f"Web words {number}", **given}).encode(),
            )
    words = [f"captioner.model={emu}", "captioner.max_new_tokens=5", "fusion_filters=none", "runner.processes=1"]
    out = tmp_path / "out"
    words += ["captioner=zoo", "fusion_engine=echo", f"out={out}", "formats=[parquet]"]
    assert main(["fuse", str(tmp_path / "in"), *words]) in (0, None)
    rows = list(read_units(out))
    captioner = build({"type": "zoo_captioner", "model": str(emu), "max_new_tokens": 5})
    expected = captioner.caption(pictures[:3])
    expected[1] = "a known thing"
    assert [list(row["synthetic"]) for row in rows] == [[text] for text in expected]
    noted = json.loads((out / "manifest.captioner.json").read_text())["captioner"]
    assert noted["fingerprint"] == captioner.describe()["fingerprint"]
