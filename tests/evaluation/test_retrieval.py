import pytest
import torch

from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.evaluation.retrieval import Retrieval
from multimodal_zoo.evaluation.samples import Gallery, numbered
from multimodal_zoo.registry import build, find


def brute_recall(similarity, relevant, k):
    best = similarity.topk(k, dim=1).indices
    return relevant.gather(1, best).any(dim=1).float().mean().item()


def test_evaluator_equals_brute_force(model, processor, squares, cpu):
    dataset = squares(shades=3, captions=2)
    result = Retrieval(dataset, concept="concept", batch_size=5)(model, processor, cpu)
    model.eval()
    with torch.no_grad():
        images = model.encode_image(processor.images([d.image for d in dataset.items]))
        owner = torch.arange(24).repeat_interleave(2)
        texts = model.encode_text(processor.texts([s.text for d in dataset.items for s in d.segments[1:]]))
    concept = numbered([d.meta["concept"] for d in dataset.items])
    for infix, labels in (("", torch.arange(24)), ("concept_", concept)):
        relevant = labels[:, None] == labels[owner][None]
        for k in (1, 5, 10):
            forward = brute_recall(images @ texts.T, relevant, k)
            backward = brute_recall(texts @ images.T, relevant.T, k)
            assert result.metrics[f"image_to_text_{infix}R@{k}"] == pytest.approx(forward)
            assert result.metrics[f"text_to_image_{infix}R@{k}"] == pytest.approx(backward)
            assert result.metrics[f"{infix}R@{k}"] == pytest.approx((forward + backward) / 2)
    assert set(result.figures) == {"text_to_image", "image_to_text"}
    assert result.details["texts"] == 48


def test_exact_only_without_pictures(model, processor, squares, cpu):
    result = Retrieval(squares(), examples=0, places=[1, 2])(model, processor, cpu)
    assert not result.figures
    assert not any("concept" in name for name in result.metrics)
    assert result.headline == ("image_to_text_R@1", "image_to_text_R@2", "text_to_image_R@1", "text_to_image_R@2")


def test_one_document(model, processor, squares, cpu):
    dataset = squares(shades=1)
    dataset.items = dataset.items[:1]
    assert Retrieval(dataset)(model, processor, cpu).metrics["mean_recall"] == 1.0


def test_a_stream_without_length(model, processor, squares, cpu):
    class Stream:
        def __iter__(self):
            return iter(squares().items)

    streamed = Retrieval(Stream())(model, processor, cpu)
    assert streamed.metrics == Retrieval(squares())(model, processor, cpu).metrics
    assert streamed.figures["text_to_image"].png


def test_errors(model, processor, squares, cpu):
    with pytest.raises(ValueError, match=r"places.*got \[0\]"):
        Retrieval(squares(), places=[0])
    with pytest.raises(ValueError, match="no usable"):
        Retrieval(squares(shades=0))(model, processor, cpu)
    with torch.no_grad():
        model.colour.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="image embeddings are NaN or infinite"):
        Retrieval(squares())(model, processor, cpu)


def test_gallery_asks_every_order_for_the_same_documents(squares):
    forward, backward = squares(shades=4), squares(shades=4)
    backward.items.reverse()
    galleries = [Gallery(source, size=9) for source in (forward, backward)]
    keys = [{document.key for document in gallery} for gallery in galleries]
    assert keys[0] == keys[1]
    assert len(keys[0]) == len(galleries[0]) == 9
    assert {d.key for d in Gallery(forward, 9, salt="other")} != keys[0]
    assert len(Gallery(forward, 999)) == 32
    assert {d.meta["shade"] for d in Gallery(forward, 8, by="shade")} != {0, 1, 2, 3}


def test_gallery_errors(squares):
    with pytest.raises(ValueError, match="at least 1"):
        Gallery(squares(), 0)
    with pytest.raises(ValueError, match="no 'sequence'"):
        Gallery(squares(), 2, by="sequence")


def test_a_gallery_leaves_out_what_is_broken(squares):
    class Broken(squares):
        def __getitem__(self, number):
            if number in (1, 5):
                raise UnusableError("broken image", str(number))
            return super().__getitem__(number)

    source = Broken(shades=4)
    gallery = Gallery(source, size=999)
    assert len(gallery) == len(list(gallery)) == 30
    assert source.skips.counts == {"broken image": 2}


def test_parts_are_registered():
    for name in ("retrieval", "zero_shot_classification", "linear_probe", "gallery", "class_texts"):
        assert find(name)
    prompts = build({"type": "class_prompts", "names": ["a"], "templates": ["{c}"]})
    assert prompts.names == ["a"]
