"""Every evaluator on a model whose tokens are compared: none may look at its embeddings, which were never trained."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.class_vectors import ClassPrompts, ClassTexts, class_means
from multimodal_zoo.evaluation.features import grouped
from multimodal_zoo.evaluation.linear_probe import LinearProbe
from multimodal_zoo.evaluation.retrieval import Retrieval
from multimodal_zoo.evaluation.suite import run_suite
from multimodal_zoo.evaluation.zero_shot import ZeroShotClassification, accuracies
from multimodal_zoo.zoo import create

TEMPLATES = ["{c}", "a {c} one", "the {c}"]


@pytest.fixture
def filip():
    """Its embeddings are NaN: a look at them would show."""
    model = create("filip_tiny", seed=1)
    with torch.no_grad():
        model.image_projection.weight.fill_(float("nan"))
        model.text_projection.weight.fill_(float("nan"))
    return model


@torch.no_grad()
def image_tokens(model, dataset):
    model.eval()
    images = model.processor.images([document.image for document in dataset.items])
    return normalize(model.encode_image_tokens(images), dim=-1)


@torch.no_grad()
def text_tokens(model, texts):
    model.eval()
    return normalize(torch.cat([model.encode_text_tokens(model.processor.texts([text])) for text in texts]), dim=-1)


def class_matrices(model, lists):
    means = [text_tokens(model, texts).mean(0) for texts in lists]
    return torch.stack([mean / mean.norm() for mean in means])


def plain_scores(queries, gallery):
    """Mean over a query's tokens of the best token of a gallery item, pair by pair."""
    return torch.stack([torch.stack([(q @ g.T).amax(1).mean() for g in gallery]) for q in queries])


def test_class_matrices(filip, monkeypatch):
    lists = [["red", "a red one"], ["blue"], ["red", "green thing", "x"]]
    expected = class_matrices(filip, lists)
    assert expected.shape[1:] == (filip.text.context_length, filip.heads["token_wise"].embed_dim)
    for at_once in (1, 3, 1000):  # texts whose tokens are held at once
        monkeypatch.setattr("multimodal_zoo.evaluation.class_vectors.TEXTS_AT_ONCE", at_once)
        torch.testing.assert_close(class_means(filip, filip.processor, lists, batch_size=2), expected)
    torch.testing.assert_close(expected.flatten(1).norm(dim=1), torch.ones(3))
    assert [len(group) for group in grouped(lists, 3)] == [2, 1]


@pytest.mark.parametrize("resizes", [None, ["squash", "shorter_crop"]])
def test_zero_shot(filip, squares, cpu, resizes):
    dataset = squares()
    classes = ClassPrompts(dataset.classnames, TEMPLATES)
    result = ZeroShotClassification(dataset, classes, "label", batch_size=3, resizes=resizes)(
        filip, filip.processor, cpu
    )
    prompts = [[template.replace("{c}", name) for template in TEMPLATES] for name in dataset.classnames]
    scores = plain_scores(image_tokens(filip, dataset), class_matrices(filip, prompts))
    expected = accuracies(scores, torch.arange(16) % 8)
    assert {key: result.metrics[key] for key in expected} == pytest.approx(expected)


def test_zero_shot_with_classes_from_texts(filip, squares, cpu):
    dataset = squares(shades=1)
    part = ClassTexts(squares(shades=3), label="colour")
    result = ZeroShotClassification(dataset, part, "colour")(filip, filip.processor, cpu)
    names, matrices = part.vectors(filip, filip.processor, None, 64, cpu)
    scores = plain_scores(image_tokens(filip, dataset), matrices)
    target = torch.tensor([names.index(document.meta["colour"]) for document in dataset.items])
    assert result.metrics["top1"] == pytest.approx(accuracies(scores, target)["top1"])


def test_retrieval_in_both_directions(filip, squares, cpu):
    dataset = squares(shades=3, captions=2)
    result = Retrieval(dataset, concept="concept", batch_size=5)(filip, filip.processor, cpu)
    images = image_tokens(filip, dataset)
    texts = text_tokens(filip, [s.text for d in dataset.items for s in d.segments[1:]])
    owner = torch.arange(24).repeat_interleave(2)
    relevant = torch.arange(24)[:, None] == owner[None]
    for direction, scores, hits in (
        ("image_to_text", plain_scores(images, texts), relevant),
        ("text_to_image", plain_scores(texts, images), relevant.T),
    ):
        for k in (1, 5, 10):
            found = hits.gather(1, scores.topk(k, dim=1).indices).any(1).float().mean().item()
            assert result.metrics[f"{direction}_R@{k}"] == pytest.approx(found)
    assert result.metrics["concept_R@1"] >= result.metrics["R@1"]
    assert set(result.figures) == {"text_to_image", "image_to_text"}


@pytest.mark.parametrize("features", ["pooled", "embedding"])
def test_probe_reads_tokens(filip, squares, cpu, features):
    probe = LinearProbe(squares(shades=6), squares(shades=2, offset=3), "colour", features, split_by="shade")
    found = probe(filip, filip.processor, cpu)
    assert found.details["width"] == (filip.image.width if features == "pooled" else 128)
    assert found.details["features"] == f"{features} (mean of tokens)"
    assert found.metrics["top1"] > 0.5


def test_a_saved_result_is_not_that_of_another_way_of_comparing(squares, cpu, tmp_path):
    weights = []
    for override in ([], ["+model.matching.padding=false"], ["model.matching=null"]):
        model = create("filip_tiny", overrides=override, seed=1)
        part = ZeroShotClassification(squares(), ClassPrompts(squares().classnames, ["{c}"]), "label")
        run_suite(model, model.processor, {"zero_shot": part}, tmp_path, cpu)
        weights.append(json.loads((tmp_path / "evaluation/zero_shot.json").read_text())["details"]["weights"])
    assert len(set(weights)) == 3
    assert len(list((tmp_path / "class_vectors").glob("*.safetensors"))) == 3


def test_a_class_matrix_is_kept_like_a_vector(filip, squares, cpu, tmp_path):
    part = ClassPrompts(squares().classnames, ["{c}"])
    for _ in range(2):
        run_suite(filip, filip.processor, {"z": ZeroShotClassification(squares(), part, "label")}, tmp_path, cpu)
    (file,) = (tmp_path / "class_vectors").glob("*.safetensors")
    assert part.workspace.folder == file.parent


def test_sample_sheet_shows_what_the_model_compares(filip, squares, cpu):
    from multimodal_zoo.training.samples import similarities

    pairs = [(document.image, document.text) for document in squares(shades=1).items]
    found = similarities(filip, filip.processor, pairs, 4, cpu)
    texts = [text for _, text in pairs]
    expected = plain_scores(image_tokens(filip, squares(shades=1))[::2], text_tokens(filip, texts))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("command", ["embed", "export"])
def test_commands_that_need_one_vector_each_refuse(tmp_path, command):
    from importlib import import_module

    words = ["model=filip_tiny", "allow_random=true", f"out={tmp_path / 'e'}"]
    words += ["data=emoji", "data.train.splits=[val]"] if command == "embed" else ["format=torch_export"]
    config = compose(f"base/{command}", words)
    with pytest.raises(ValueError, match=rf"model.matching.*TokenMatching.*mmzoo {command} cannot.*matching=null"):
        import_module(f"multimodal_zoo.commands.{command}").run(config)
    assert not (tmp_path / "e").exists()


def test_retrieve_refuses_too(tmp_path):
    from multimodal_zoo.commands.retrieve import Options, load

    named = {"source": None, "weights": None, "allow_random": True, "resize": False}
    config = compose("base/eval", ["model=filip_tiny", "benchmark=emoji"]).model
    with pytest.raises(ValueError, match="mmzoo retrieve cannot"):
        load({"model": {**named, "model": config}, "weights": ""}, Options())
