"""FID, CLIP-I, CLIP-T and DINO scores of drawings, against closed forms and second ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.data.benchmark_set import AbsentDataError
from multimodal_zoo.data.documents import Document
from multimodal_zoo.evaluation.picture_features import DualEncoderFeatures, OwnFeatures, TransformersFeatures
from multimodal_zoo.evaluation.picture_scores import InceptionFeatures, PictureScores, frechet_distance
from multimodal_zoo.evaluation.reference_suites import CaptionPrompts, DreamBenchPrompts

CPU = torch.device("cpu")


def exact_sample(mean: torch.Tensor, covariance: torch.Tensor, count: int) -> torch.Tensor:
    """Points whose own mean and covariance are exactly these."""
    raw = torch.randn(count, len(mean), dtype=torch.float64)
    raw = raw - raw.mean(0)
    whitened = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T.cov())).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def test_fid_is_that_of_two_gaussians() -> None:
    torch.manual_seed(0)
    width = 6
    means = torch.randn(2, width, dtype=torch.float64)
    mixes = torch.randn(2, width, width, dtype=torch.float64)
    one, other = mixes @ mixes.transpose(1, 2) + 0.1 * torch.eye(width)
    made, true = exact_sample(means[0], one, 60), exact_sample(means[1], other, 50)
    values, vectors = torch.linalg.eigh(one)
    root = vectors @ values.sqrt().diag() @ vectors.T  # the square root of the first covariance
    middle = torch.linalg.eigvalsh(root @ other @ root).sqrt().sum()
    expected = (means[0] - means[1]).square().sum() + one.trace() + other.trace() - 2 * middle
    found = frechet_distance(made.split(7), true.split(50), width)
    assert found == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance([made], [made], width) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="got 50 true and 1 drawn"):
        frechet_distance([made[:1]], [true], width)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """COCO's captions of six pictures, two each, and drawings of all."""
    images = [{"id": 10 + n, "file_name": f"{n}.png"} for n in range(6)]
    captions = [
        {"id": 100 + n, "image_id": 10 + n % 6, "caption": f"a picture of {['red', 'blue'][n % 2]} {n} "}
        for n in range(12)
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    generator = np.random.default_rng(0)
    for folder in ("real", "drawn"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        Pil.fromarray(generator.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / "real" / f"{number}.png")
    return tmp_path


def draw_all(suite: Any, folder: Path, per_prompt: int = 1) -> None:
    generator = np.random.default_rng(1)
    for place, prompt in enumerate(suite.prompts()):
        pictures = [Pil.fromarray(generator.integers(0, 255, (16, 16, 3), np.uint8)) for _ in range(per_prompt)]
        suite.write(folder, place, prompt, pictures)


def captions(root: Path, **changes: Any) -> CaptionPrompts:
    return CaptionPrompts(str(root), "captions.json", "real", **{"count": 5, "seed": 2, **changes})


def test_captions_are_drawn_once_and_for_all(coco: Path) -> None:
    suite = captions(coco)
    found = suite.prompts()
    assert [one.key for one in found] == sorted({one.key for one in found}, key=int)
    assert found == captions(coco).prompts() != captions(coco, seed=3).prompts()
    assert [one.text for one in found] == [f"a picture of {['red', 'blue'][int(k) % 2]} {k}" for k in map(str, (
        int(one.key) for one in found))]  # fmt: skip
    assert [one.references for one in found] == [(coco / "real" / f"{int(one.key) % 6}.png",) for one in found]
    assert [one.document() for one in found] == [one.text for one in found]
    assert len(captions(coco, count=None).prompts()) == 12
    alone = captions(coco, shown="picture").prompts()[0]
    document = alone.document()
    assert isinstance(document, Document)
    assert [type(part).__name__ for part in document.segments] == ["Image"]
    with pytest.raises(ValueError, match=r"count is 13; .* has 12 captions"):
        captions(coco, count=13).prompts()
    with pytest.raises(ValueError, match="shown is 'both'"):
        captions(coco, shown="both")
    (coco / "captions.json").write_text("{}")
    with pytest.raises(ValueError, match="not in COCO's layout"):
        suite.prompts()


def test_figures_of_a_dual_encoder(coco: Path) -> None:
    encoder = zoo.create("clip_tiny", overrides=["encoder@model.image=clip_vit_tiny", "model.text.blocks.depth=1"])
    encoder = encoder.eval()
    save_model(encoder, coco / "clip")
    suite = captions(coco)
    draw_all(suite, coco / "drawn", per_prompt=2)
    features = DualEncoderFeatures(str(coco / "clip"), batch_size=3)
    part = PictureScores(suite, str(coco / "drawn"), 2, clip_image=features, clip_text=features, dino=OwnFeatures())
    found = part(encoder, None, CPU)
    images, texts = [], []
    with torch.no_grad():
        for place, prompt in enumerate(suite.prompts()):
            paths = [coco / "drawn" / name for name in suite.files(place, prompt, 2)]
            pixels = encoder.processor.images([Pil.open(path) for path in (*paths, *prompt.references)])
            vectors = nn.functional.normalize(encoder.encode_image(pixels), dim=-1)
            words = nn.functional.normalize(encoder.encode_text(encoder.processor.texts([prompt.text])), dim=-1)
            images.append((vectors[:2] @ vectors[2]).mean())
            texts.append((vectors[:2] @ words[0]).mean())
    assert found.metrics["clip_image"] == pytest.approx(float(torch.stack(images).mean()), abs=1e-5)
    assert found.metrics["clip_text"] == pytest.approx(float(torch.stack(texts).mean()), abs=1e-5)
    assert found.metrics["dino"] == pytest.approx(found.metrics["clip_image"], abs=1e-5)  # the same encoder
    assert found.name == "coco_scores"
    same = PictureScores(suite, str(coco / "same"), 1, clip_image=features)
    for place, prompt in enumerate(suite.prompts()):
        suite.write(coco / "same", place, prompt, [Pil.open(prompt.references[0])])
    assert same(encoder, None, CPU).metrics["clip_image"] == pytest.approx(1.0, abs=1e-5)


def test_dino_from_a_folder_of_transformers(coco: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).eval()
    model.save_pretrained(coco / "dino")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(coco / "dino")
    pictures = [Pil.open(coco / "real" / f"{number}.png") for number in range(3)]
    found = TransformersFeatures(str(coco / "dino"), batch_size=2).vectors(nn.Identity(), pictures, CPU)
    pixels = [np.asarray(one.resize((32, 32), Pil.Resampling.BILINEAR), np.float32) / 127.5 - 1 for one in pictures]
    with torch.no_grad():
        whole = model(pixel_values=torch.from_numpy(np.stack(pixels)).movedim(-1, 1)).last_hidden_state[:, 0]
    torch.testing.assert_close(found, nn.functional.normalize(whole, dim=-1), atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match=r"transformers_features\.path is null"):
        TransformersFeatures(None).vectors(nn.Identity(), pictures, CPU)


@pytest.mark.slow
def test_fid_by_inception_from_a_file(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = inception.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:  # random weights, by what the file would give
        patch.setattr(network, "load_state_dict", lambda self, state: None)
        patch.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: {})
        torch.save(network("inception", ["2048"]).state_dict(), coco / "inception.pth")
    features = InceptionFeatures(str(coco / "inception.pth"), batch_size=2)
    suite = captions(coco, count=4)
    draw_all(suite, coco / "drawn")
    found = PictureScores(suite, str(coco / "drawn"), fid=features)(nn.Identity(), None, CPU).metrics["fid"]
    rows = {}
    for name, paths in (
        ("made", [coco / "drawn" / suite.files(0, one, 1)[0] for one in suite.prompts()]),
        ("true", list(dict.fromkeys(one.references[0] for one in suite.prompts()))),
    ):
        pixels = torch.stack([torch.from_numpy(np.array(Pil.open(path))).movedim(-1, 0) for path in paths])
        rows[name] = features.network()(pixels)[0].double()
    # few pictures: the root of the product has as many values as there are pictures, by their inner products
    made, true = (rows[name] - rows[name].mean(0) for name in ("made", "true"))
    count = (len(made) - 1) * (len(true) - 1)
    middle = torch.linalg.svdvals(made @ true.T).sum() / count**0.5
    spread = made.square().sum() / (len(made) - 1) + true.square().sum() / (len(true) - 1)
    expected = (rows["made"].mean(0) - rows["true"].mean(0)).square().sum() + spread - 2 * middle
    assert found == pytest.approx(float(expected), rel=1e-3)
    with pytest.raises(ValueError, match=r"inception_features\.path is null"):
        InceptionFeatures(None).network()


LISTS = """Classes

subject_name,class
backpack,backpack
cat,cat

Prompts

Object Prompts
prompt_list = [
	'a {0} {1} in the jungle'.format(unique_token, class_token),
	"a {0} {1} on a boy's table".format(unique_token, class_token),
]

Live Subject Prompts
prompt_list = [
	'a {0} {1} in a hat'.format(unique_token, class_token),
]
"""


def test_dreambench(tmp_path: Path) -> None:
    (tmp_path / "prompts_and_classes.txt").write_text(LISTS)
    suite = DreamBenchPrompts(str(tmp_path))
    (tmp_path / "backpack").mkdir()
    with pytest.raises(AbsentDataError, match="no picture of backpack"):
        suite.prompts()
    for name in ("backpack/00.jpg", "backpack/01.jpg", "cat/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pil.new("RGB", (16, 16), "red").save(tmp_path / name)
    found = suite.prompts()
    assert [(one.key, one.text) for one in found] == [
        ("backpack/00", "a backpack in the jungle"),
        ("backpack/01", "a backpack on a boy's table"),
        ("cat/00", "a cat in a hat"),
    ]
    assert found[0].shown == found[0].references[:1]
    assert len(found[0].references) == 2
    document = found[0].document()
    assert isinstance(document, Document)
    assert (document.text, document.key) == ("a backpack in the jungle", "backpack/00")
    assert suite.files(0, found[0], 2) == ["backpack/00_0.png", "backpack/00_1.png"]
    (tmp_path / "prompts_and_classes.txt").write_text("")
    with pytest.raises(ValueError, match="not in DreamBench's layout: 0 subjects"):
        suite.prompts()


def test_bad_input(coco: Path) -> None:
    suite = captions(coco)
    with pytest.raises(ValueError, match="give features for one figure"):
        PictureScores(suite)
    with pytest.raises(ValueError, match=r"picture_scores\.folder"):
        PictureScores(suite, dino=OwnFeatures())(nn.Identity(), None, CPU)
    with pytest.raises(FileNotFoundError, match="5 of 5 drawings of coco are not there"):
        PictureScores(suite, str(coco / "drawn"), dino=OwnFeatures())(nn.Identity(), None, CPU)
    alone = captions(coco, shown="picture")
    draw_all(alone, coco / "drawn")
    with pytest.raises(ValueError, match="has no text; leave clip_text out"):
        PictureScores(alone, str(coco / "drawn"), clip_text=DualEncoderFeatures(None))(nn.Identity(), None, CPU)
    with pytest.raises(ValueError, match=r"dual_encoder_features\.path is null"):
        PictureScores(suite, str(coco / "drawn"), clip_image=DualEncoderFeatures(None))(nn.Identity(), None, CPU)


def test_a_dual_encoder_is_marked_by_its_weights(tmp_path: Path) -> None:
    marks = []
    for seed in (0, 1):
        place = tmp_path / str(seed) / "model"
        save_model(
            zoo.create(
                "clip_tiny", overrides=["encoder@model.image=clip_vit_tiny", "model.text.blocks.depth=1"], seed=seed
            ),
            place,
        )
        features = DualEncoderFeatures(str(place))
        assert features.name == "the dual encoder model"
        marks.append(features.mark(CPU))
    assert marks[0] != marks[1]
