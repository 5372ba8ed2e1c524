"""The same folders and the same model through CLIP_benchmark's own reader, classifier and metrics."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal_zoo.data.benchmark_set import BenchmarkSet
from multimodal_zoo.data.prompts import packaged_prompts
from multimodal_zoo.evaluation.class_vectors import DatasetPrompts, build_classifier
from multimodal_zoo.evaluation.retrieval import Retrieval
from multimodal_zoo.evaluation.views import resized
from multimodal_zoo.evaluation.zero_shot import ZeroShotClassification
from multimodal_zoo.zoo import create

pytest.importorskip("clip_benchmark")

pytestmark = [pytest.mark.filterwarnings("ignore:WebDataset:UserWarning"), pytest.mark.usefixtures("pixels")]

CPU = torch.device("cpu")
SETS = {"voc2007": 20, "imagenet-r": 200, "fer2013": 7, "pcam": 2}


@pytest.fixture(scope="module")
def model():
    """Random weights, but vectors far enough apart that no rank hangs on the last bit: every name is read whole."""
    whole = ["model.text.context_length=40", "model.text.vocab_size=49408", "tokenizer@model.processor.texts=clip_bpe"]
    model = create("eva_clip_tiny", overrides=["model.embed_dim=64", *whole], seed=1).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def pictures(count, seed):
    generator = np.random.default_rng(seed)
    for number in range(count):
        width, height = ((64, 48), (40, 70), (48, 48))[number % 3]
        coarse = Image.fromarray(generator.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        yield coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def write(folder, samples):
    (folder / "test").mkdir(parents=True)
    half = len(samples) // 2
    for shard, part in enumerate((samples[:half], samples[half:])):
        with tarfile.open(folder / f"test/{shard}.tar", "w") as tar:
            for number, files in enumerate(part):
                for suffix, content in files.items():
                    info = tarfile.TarInfo(f"s{shard}{number:05d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (folder / "test/nshards.txt").write_text("2\n")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory, model):
    """Sets whose labels are often right: one of the model's own first three guesses."""
    root = tmp_path_factory.mktemp("peer")
    generator = np.random.default_rng(0)
    for seed, (name, classes) in enumerate(SETS.items()):
        prompts = packaged_prompts(name)
        templates = prompts.templates[:3]
        images = list(pictures(40, seed))
        with torch.no_grad():
            guesses = model.encode_image(model.processor.images(images)) @ build_classifier(
                model, model.processor, prompts.names, templates, 64
            ).T.to(torch.float32)
        order = guesses.argsort(dim=1, descending=True)
        labels = [int(row[generator.integers(min(3, classes))]) for row in order]
        files = [{"webp": encoded(i), "cls": str(label).encode()} for i, label in zip(images, labels, strict=True)]
        folder = write(root / f"wds_{name}", files)
        (folder / "classnames.txt").write_text("\n".join(prompts.names) + "\n")
        (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    captions = [[f"picture {n}, sentence {c} of {n % 7}" for c in range(5)] for n in range(30)]
    texts = ["\n".join(lines).encode() for lines in captions]
    files = [{"webp": encoded(i), "txt": text} for i, text in zip(pictures(30, 9), texts, strict=True)]
    folder = write(root / "wds_flickr30k", files)
    (folder / "dataset_type.txt").write_text("retrieval\n")
    return root


def peer_loader(root, name, processor, task, collate=None):
    """CLIP_benchmark's own way to such a folder."""
    from clip_benchmark.datasets.builder import build_dataset

    dataset = build_dataset(
        f"wds/{name}",
        root=str(root / f"wds_{name}"),
        transform=lambda image: processor.images([image])[0],
        split="test",
        task=task,
    )
    return torch.utils.data.DataLoader(dataset, batch_size=16, collate_fn=collate)


def accuracy(output, target, topk=(1,)):
    """CLIP_benchmark's `accuracy` without its `float(array of one number)`, which NumPy refuses since 2.4."""
    predicted = output.topk(max(topk), 1, True, True)[1].t()
    correct = predicted.eq(target.view(1, -1).expand_as(predicted))
    return [correct[:k].reshape(-1).float().sum(0).item() / len(target) for k in topk]


@pytest.mark.filterwarnings("ignore:y_pred contains classes:UserWarning")
@pytest.mark.parametrize("resize", ["shorter_crop", "squash"])
@pytest.mark.parametrize("name", SETS)
def test_classification_as_clip_benchmark(root, model, name, resize, monkeypatch):
    from clip_benchmark.metrics import zeroshot_classification as peer

    monkeypatch.setattr(peer, "accuracy", accuracy)
    processor = resized(model.processor, resize)
    loader = peer_loader(root, name, processor, "zeroshot_classification")
    data = BenchmarkSet(name, str(root), classes=SETS[name])
    assert data.classnames == loader.dataset.classes
    assert [t.replace("{}", "{c}") for t in data.templates] == loader.dataset.templates
    expected = peer.evaluate(
        model, loader, processor.texts, loader.dataset.classes, loader.dataset.templates, device="cpu", amp=False
    )
    part = ZeroShotClassification(data, DatasetPrompts(), "label", 32, ["shorter_crop", "squash"])
    found = part(model, model.processor, CPU).metrics
    assert found[f"{resize}_top1"] == pytest.approx(expected["acc1"], abs=1e-6)
    assert found[f"{resize}_mean_per_class"] == pytest.approx(expected["mean_per_class_recall"], abs=1e-6)
    if SETS[name] >= 5:
        assert found[f"{resize}_top5"] == pytest.approx(expected["acc5"], abs=1e-6)
    assert 0.1 < expected["acc1"] < 0.9  # neither chance nor certainty: the comparison says something


@pytest.mark.parametrize("name", ["voc2007", "imagenet-r"])
def test_class_vectors_and_logits_as_clip_benchmark(root, model, name):
    from clip_benchmark.metrics import zeroshot_classification as peer

    data = BenchmarkSet(name, str(root), classes=SETS[name])
    templates = [template.replace("{}", "{c}") for template in data.templates]
    expected = peer.zero_shot_classifier(
        model, model.processor.texts, data.classnames, templates, device="cpu", amp=False
    )
    vectors = DatasetPrompts().vectors(model, model.processor, data, 64, CPU)[1]
    torch.testing.assert_close(vectors, expected.T, atol=1e-6, rtol=1e-5)
    loader = peer_loader(root, name, model.processor, "zeroshot_classification")
    logits, labels = peer.run_classification(model, expected, loader, device="cpu", amp=False)
    documents = list(data)
    assert [document.meta["label"] for document in documents] == labels.tolist()
    with torch.no_grad():
        ours = 100 * model.encode_image(model.processor.images([d.image for d in documents])) @ vectors.T
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-5)


def test_retrieval_as_clip_benchmark(root, model):
    from clip_benchmark.datasets.builder import image_captions_collate_fn
    from clip_benchmark.metrics import zeroshot_retrieval as peer

    processor = resized(model.processor, "squash")
    loader = peer_loader(root, "flickr30k", processor, "zeroshot_retrieval", image_captions_collate_fn)
    expected = peer.evaluate(model, loader, processor.texts, device="cpu", amp=False, recall_k_list=[1, 5, 10])
    data = BenchmarkSet("flickr30k", str(root), captions=5)
    found = Retrieval(data, batch_size=7, examples=0, resize="squash")(model, model.processor, CPU).metrics
    for k in (1, 5, 10):
        assert found[f"text_to_image_R@{k}"] == pytest.approx(expected[f"image_retrieval_recall@{k}"], abs=1e-6)
        assert found[f"image_to_text_R@{k}"] == pytest.approx(expected[f"text_retrieval_recall@{k}"], abs=1e-6)
    assert found["mean_recall"] == pytest.approx(sum(expected.values()) / 6, abs=1e-6)
    assert 0.1 < found["mean_recall"] < 0.9
