import pytest
import torch
from torch.nn import functional as F

from multimodal_zoo.evaluation.class_vectors import (
    ClassPrompts,
    ClassTexts,
    DatasetPrompts,
    build_classifier,
    class_means,
)
from multimodal_zoo.evaluation.zero_shot import ZeroShotClassification, accuracies, confusion


def test_accuracies_against_brute_force():
    logits, target = torch.randn(50, 7), torch.randint(6, (50,))  # class 6 never occurs
    order = logits.argsort(dim=1, descending=True)
    found = accuracies(logits, target)
    assert found["top1"] == pytest.approx((order[:, 0] == target).float().mean().item())
    assert found["top5"] == pytest.approx((order[:, :5] == target[:, None]).any(1).float().mean().item())
    recalls = [(order[target == c, 0] == c).float().mean().item() for c in range(6)]
    assert found["mean_per_class"] == pytest.approx(sum(recalls) / 6, abs=1e-6)


def test_of_equal_scores_the_earlier_class_comes_first():
    target = torch.arange(10)
    found = accuracies(torch.zeros(10, 10), target)
    assert (found["top1"], found["top5"]) == (pytest.approx(0.1), pytest.approx(0.5))
    assert found["mean_per_class"] == pytest.approx(0.1)
    few = accuracies(torch.eye(3), torch.tensor([0, 1, 0]))
    assert (few["top1"], few["top5"]) == (pytest.approx(2 / 3), 1.0)


def test_confusion_counts():
    found = confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]), 3)
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_class_means_equal_the_plain_way(model, processor):
    texts = [["red", "a red one"], ["blue"], ["red", "green thing", "x"]]
    found = class_means(model, processor, texts, batch_size=2)
    model.eval()
    plain = [F.normalize(model.encode_text(processor.texts(t)).mean(0), dim=-1) for t in texts]
    torch.testing.assert_close(found, torch.stack(plain).detach())


def test_shared_prompts_are_embedded_once(model, processor):
    build_classifier(model, processor, ["red", "blue", "red"], ["{c}", "a photo"[:0] + "{c}", "one {c}"], 64)
    assert sum(shape[0] for shape in model.shapes) == 4


def test_classifier_errors(model, processor):
    with pytest.raises(ValueError, match=r"'a photo' has no place"):
        build_classifier(model, processor, ["red"], ["a photo"], 4)
    with pytest.raises(ValueError, match="got 0 and 1"):
        build_classifier(model, processor, [], ["{c}"], 4)
    with pytest.raises(ValueError, match=r"classes \[1\] have no text"):
        class_means(model, processor, [["a"], []], 4)


@pytest.mark.parametrize("label", ["label", "colour"])
def test_evaluator_by_number_and_by_name(model, processor, squares, cpu, label):
    dataset = squares()
    result = ZeroShotClassification(dataset, DatasetPrompts(), label, batch_size=3)(model, processor, cpu)
    vectors = build_classifier(model, processor, dataset.classnames, dataset.templates, 64)
    model.eval()
    pixels = processor.images([document.image for document in dataset.items])
    expected = accuracies(model.encode_image(pixels) @ vectors.T, torch.arange(16) % 8)
    assert {key: result.metrics[key] for key in expected} == pytest.approx(expected)
    assert result.figures["confusion"].png.startswith(b"\x89PNG")
    assert result.details["majority_class"] == pytest.approx(1 / 8)
    assert result.details["attribution"] == ["squares: drawn by the tests"]


def test_class_texts_come_from_another_dataset(model, processor, squares, cpu):
    part = ClassTexts(squares(shades=3), label="colour")
    names, vectors = part.vectors(model, processor, None, 8, cpu)
    assert names == sorted(squares().classnames)
    expected = class_means(model, processor, [["black 0", "black shade 0", "black shade shade 0"]], 8)
    torch.testing.assert_close(vectors[names.index("black")], expected[0])


def test_evaluator_errors(model, processor, squares, cpu):
    empty = squares(shades=0)
    empty.skips.add("broken image", "a.png")
    classes = ClassPrompts(["red"], ["{c}"])
    with pytest.raises(ValueError, match=r"no usable (document|sample).*1 skipped: broken image 1 \(a.png\)"):
        ZeroShotClassification(empty, classes, "colour")(model, processor, cpu)
    with pytest.raises(ValueError, match=r"label 'colour': 7 values are no class: black"):
        ZeroShotClassification(squares(), classes, "colour")(model, processor, cpu)
    with pytest.raises(ValueError, match=r"16 of 16 documents of coloured squares have no 'breed'.*they have colour"):
        ZeroShotClassification(squares(), classes, "breed")(model, processor, cpu)
    bare = squares()
    bare.templates = []
    with pytest.raises(ValueError, match="brings no class names and templates"):
        ZeroShotClassification(bare, DatasetPrompts(), "label")(model, processor, cpu)
