import pytest
import torch

from multimodal_zoo.evaluation import features
from multimodal_zoo.evaluation.features import embed_images, embed_texts, evaluating, prefetched, row_lengths


def test_each_module_gets_its_own_mode_back(model):
    model.train()
    model.letters.eval()
    with evaluating(model):
        assert not model.dropout.training
        assert torch.is_inference_mode_enabled()
    assert model.training
    assert model.dropout.training
    assert not model.letters.training


def test_mode_comes_back_after_an_error(model):
    model.train()
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        raise RuntimeError("stop")
    assert model.dropout.training


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_order_for_any_batch_size(model, processor, squares, cpu, batch_size, workers):
    pictures = [document.image for document in squares().items]
    found = embed_images(model, iter(pictures), processor.images, batch_size=batch_size, device=cpu, workers=workers)
    model.eval()
    torch.testing.assert_close(found, model.encode_image(processor.images(pictures)).detach())
    assert not found.is_inference()


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_texts_are_sorted_by_length_deduplicated_and_come_back_in_order(model, processor, cpu, batch_size, monkeypatch):
    monkeypatch.setattr(features, "TOKENISED_AT_ONCE", 5)
    texts = [
        "a long text about nothing",
        "b",
        "cc",
        "b",
        "another rather long text, it is",
        "cc",
        "ddd",
        "ee",
        "f",
        "gg",
    ]
    found = embed_texts(model, texts, processor.texts, batch_size=batch_size, device=cpu, pad_id=0)
    assert sum(shape[0] for shape in model.shapes) == len(set(texts))
    model.eval()
    torch.testing.assert_close(found, model.encode_text(processor.texts(texts)).detach())


def test_short_texts_are_not_padded_to_long_ones(model, processor, cpu):
    texts = ["x" * 40] + [chr(97 + n) for n in range(8)]
    embed_texts(model, texts, processor.texts, batch_size=4, device=cpu, pad_id=0)
    assert model.shapes == [(4, 1), (4, 1), (1, 40)]


def test_row_lengths_count_inner_pads_and_empty_rows():
    ids = torch.tensor([[5, 0, 9, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    assert row_lengths(ids, 0).tolist() == [3, 1, 4]


def test_prefetch_keeps_order_and_raises():
    assert list(prefetched(sum, [[1, 2], [3], [4, 5]], workers=2)) == [3, 3, 9]
    with pytest.raises(TypeError):
        list(prefetched(sum, [[1], ["x"]], workers=2))


def test_nan_is_an_error_that_counts(model, processor, cpu):
    with torch.no_grad():
        model.letters.weight[ord("z")] = float("nan")
    with pytest.raises(ValueError, match=r"1 of 2 text embeddings are NaN.*first rows: \[1\]"):
        embed_texts(model, ["a", "z"], processor.texts, batch_size=2, device=cpu, pad_id=0)


def test_nothing_to_embed(model, processor, cpu):
    with pytest.raises(ValueError, match="no text to embed"):
        embed_texts(model, [], processor.texts, batch_size=2, device=cpu, pad_id=0)
    with pytest.raises(ValueError, match="no image to embed"):
        embed_images(model, [], processor.images, batch_size=2, device=cpu)


def test_a_live_display_elsewhere_is_no_problem(model, processor, squares, cpu):
    from rich.live import Live

    with Live("training"):
        embed_images(model, [squares().items[0].image], processor.images, batch_size=1, device=cpu)
