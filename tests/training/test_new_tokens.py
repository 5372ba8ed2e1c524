"""Vocabularies that grow, and adapters that begin anew, when training starts from other weights."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.training.initial import initial_model
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

ADAPTER = "+model.decoder.blocks.adapter={type: low_rank, rank: 2, alpha: 2, dropout: 0.0, layers: [attention.out]}"
SHARDED = {"strategy": {"_target_": "multimodal_zoo.training.sharding.FullySharded"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "model"
    model = create("emu_tiny", seed=3)
    save_model(model, folder)
    return folder, model


def started(places, overrides, trainer=None):
    node = declaration("emu_tiny", overrides)
    return initial_model({"model": node, "seed": 0, "initial_weights": places, "trainer": trainer})[0]


@pytest.mark.parametrize("part", ["model", "decoder"])
def test_new_rows_are_the_mean_of_the_others_in_both_matrices(small, part):
    folder, model = small
    found = started({part: str(folder), "new_tokens": "mean"}, ["model.decoder.vocab_size=1040"])
    for name in ("token_embedding", "output"):
        grown, first = (getattr(one.decoder, name).weight for one in (found, model))
        assert torch.equal(grown[:1033], first)
        torch.testing.assert_close(grown[1033:], first.mean(0).expand(7, -1))


def test_scattered_rows_differ_and_are_the_same_in_every_process(small):
    folder, model = small
    places = {"decoder": str(folder), "new_tokens": "scattered"}
    first, again = (started(places, ["model.decoder.vocab_size=1200"]).decoder.token_embedding.weight for _ in "ab")
    assert torch.equal(first, again)
    new, old = first[1033:], model.decoder.token_embedding.weight
    assert len(new.unique(dim=0)) == len(new)
    torch.testing.assert_close(new.std(), old.std(), rtol=0.1, atol=0)


def test_a_smaller_vocabulary_is_refused_unless_it_may_grow(small):
    folder, _ = small
    with pytest.raises(CheckpointMismatch, match="token_embedding"):
        started({"decoder": str(folder)}, ["model.decoder.vocab_size=1040"])
    with pytest.raises(ValueError, match=r"initial_weights\.new_tokens is 'zeros'; it takes mean, scattered"):
        started({"decoder": str(folder), "new_tokens": "zeros"}, ["model.decoder.vocab_size=1040"])
    with pytest.raises(CheckpointMismatch, match="token_embedding"):  # tokens are not thrown away
        started({"decoder": str(folder), "new_tokens": "mean"}, ["model.decoder.vocab_size=1000"])


@pytest.mark.parametrize("trainer", [None, SHARDED])
def test_published_parts_make_an_emu(trainer, tmp_path):
    """A folder of LLaMA's kind with fewer words, and EVA's own file: whole parts, and only the words are new."""
    node = {**declaration("emu_tiny")["decoder"], "vocab_size": 1000}
    language, tower = build_model(node, seed=4), create("eva_clip_tiny", seed=5)
    write_published(language, tmp_path / "llama", "llama", shard_size=1_000_000)
    write_published(tower, tmp_path / "eva", "eva_clip")
    places = {"decoder": str(tmp_path / "llama"), "image": str(tmp_path / "eva"), "new_tokens": "mean"}
    found = started(places, [], trainer).state_dict()
    rows = ("token_embedding.weight", "output.weight")
    for name, value in language.state_dict().items():
        new = found[f"decoder.{name}"]
        assert torch.equal(new[: len(value)], value), name
        if name in rows:
            torch.testing.assert_close(new[1000:], value.mean(0).expand(33, -1))
    for name, value in tower.image.state_dict().items():
        assert name.startswith("pool.") or torch.equal(found[f"image_encoder.{name}"], value), name


@pytest.mark.parametrize("trainer", [None, SHARDED])
def test_adapters_begin_anew_where_a_file_has_none(small, trainer):
    folder, model = small
    found = started({"model": str(folder)}, [ADAPTER], trainer)
    layer = found.decoder.blocks.layers[0].attention.out
    assert torch.equal(layer.weight, model.decoder.blocks.layers[0].attention.out.weight)
    assert layer.adapter is not None
    if trainer is None:
        assert not layer.adapter.up.any()
        assert layer.adapter.down.std() > 0


def test_saved_adapters_are_taken(small, tmp_path):
    folder, _ = small
    trained = started({"model": str(folder)}, [ADAPTER])
    torch.nn.init.normal_(trained.decoder.blocks.layers[1].attention.out.adapter.up)
    save_model(trained, tmp_path / "adapted")
    expected = trained.state_dict()
    for found in (from_pretrained(tmp_path / "adapted"), started({"model": str(tmp_path / "adapted")}, [ADAPTER])):
        assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
