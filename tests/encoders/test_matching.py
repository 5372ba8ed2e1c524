import pytest
import torch
from torch.nn.functional import normalize

from multimodal_zoo.encoders import matching
from multimodal_zoo.encoders.matching import (
    GlobalMatching,
    TokenMatching,
    image_token_scores,
    matching_of,
    token_scores,
)
from multimodal_zoo.zoo import create


@pytest.fixture(scope="module")
def filip():
    return create("filip_tiny", seed=1).eval()


def ragged(texts=5, places=7, width=6):
    tokens = normalize(torch.randn(texts, places, width), dim=-1)
    for number in range(texts):
        tokens[number, places - number % 4 :] = 0
    return tokens


@pytest.mark.parametrize("block", [1, 50, 333, 2**22])
def test_blocks_equal_a_loop_over_pairs(block, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", block)
    images, texts = normalize(torch.randn(4, 3, 6), dim=-1), ragged()
    of_images, of_texts = token_scores(images, texts)
    for i, image in enumerate(images):
        for t, text in enumerate(texts):
            products = image @ text[text.ne(0).any(-1)].T
            torch.testing.assert_close(of_images[i, t], products.amax(1).mean())
            torch.testing.assert_close(of_texts[t, i], products.amax(0).mean())
    torch.testing.assert_close(image_token_scores(images, texts), of_images)


def test_one_of_each_and_double_precision():
    images, texts = torch.randn(1, 1, 4, dtype=torch.float64), torch.randn(1, 1, 4, dtype=torch.float64)
    of_images, of_texts = token_scores(images, texts)
    assert of_images.dtype == torch.float64
    torch.testing.assert_close(of_images, (images[0] @ texts[0].T))
    torch.testing.assert_close(of_texts, of_images)


def test_gradients_pass_through_the_best_tokens():
    images, texts = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: TokenMatching().scores(a, b), (images, texts))


def test_a_class_mean_counts_the_prompts_that_have_a_place():
    prompts = ragged(4)
    found = TokenMatching().class_mean(prompts)
    for place in range(7):
        there = [prompt[place] for prompt in prompts if prompt[place].any()]
        torch.testing.assert_close(found[place], torch.stack(there).mean(0) if there else torch.zeros(6))
    whole = prompts[:1]
    torch.testing.assert_close(TokenMatching().class_mean(whole), whole.mean(0))


def test_which_way_a_model_compares(filip):
    assert isinstance(matching_of(filip), TokenMatching)
    assert isinstance(matching_of(create("clip_tiny")), GlobalMatching)
    assert isinstance(matching_of(object()), GlobalMatching)
    assert not list(filip.matching.parameters())
    assert repr(TokenMatching(padding=False)) == "TokenMatching(head='token_wise', padding=False)"
    assert not [key for key in filip.state_dict() if key.startswith("matching")]


def test_tokens_are_the_towers_mapped_by_the_head(filip):
    images, ids = torch.randn(3, 3, 48, 48), torch.randint(1, 90, (3, 5))
    with torch.no_grad():
        patches, words = filip.encode_image_tokens(images), filip.encode_text_tokens(ids)
        head = filip.heads["token_wise"]
        torch.testing.assert_close(patches, head.image(filip.image(images).tokens))
        filled = torch.cat([ids, torch.zeros(3, filip.text.context_length - 5, dtype=torch.long)], dim=1)
        torch.testing.assert_close(words, head.text(filip.text(filled).tokens))
        assert words.shape == (3, filip.text.context_length, head.embed_dim)


def test_padding_left_out_is_zero_and_the_rest_unchanged(filip):
    ids = filip.processor.texts(["red heart", "face with tears of joy"])
    with torch.no_grad():
        padded, cut = filip.encode_text_tokens(ids), filip.encode_text_tokens(ids, padding=False)
    real = filip.text(ids).mask
    assert not cut[:, ids.shape[1] :].any()
    torch.testing.assert_close(cut[:, : ids.shape[1]][real], padded[:, : ids.shape[1]][real])
    assert not cut[:, : ids.shape[1]][~real].any()


def test_a_batch_of_one_and_trimmed_ids_change_nothing(filip):
    ids = filip.processor.texts(["red heart", "face with tears of joy"])
    with torch.no_grad():
        together, alone = filip.encode_text_tokens(ids), filip.encode_text_tokens(filip.processor.texts(["red heart"]))
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


def test_texts_longer_than_the_context_are_refused(filip):
    ids = torch.ones(1, filip.text.context_length + 1, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"at most {filip.text.context_length} tokens"):
        filip.encode_text_tokens(ids)


def test_a_model_without_the_head_is_refused():
    model = create("clip_tiny")
    with pytest.raises(ValueError, match=r"needs model.heads.token_wise, the model has no heads.*matching=null"):
        model.encode_image_tokens(torch.randn(1, 3, 48, 48))


def test_a_tower_without_tokens_is_refused(filip):
    class Blind(torch.nn.Module):
        def forward(self, images):
            from multimodal_zoo.encoders.outputs import ImageFeatures

            return ImageFeatures(images.mean((2, 3)), images.new_empty(len(images), 0, 3), (0, 0))

    model = create("filip_tiny")
    model.image = Blind()
    with pytest.raises(ValueError, match=r"compares tokens, and model.image \(Blind\) gives none"):
        model.encode_image_tokens(torch.randn(1, 3, 48, 48))


def test_on_meta():
    model = create("filip_tiny", device="meta")
    ids = torch.zeros(2, 4, dtype=torch.long, device="meta")
    assert model.encode_text_tokens(ids).shape == (2, model.text.context_length, model.heads["token_wise"].embed_dim)
