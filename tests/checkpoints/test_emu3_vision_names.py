"""Names of the visual tokenizer: published, both of transformers, both ways; configurations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.checkpoints.errors import CheckpointError, UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.emu3_vision import EMU3_VISION, TRANSFORMERS_VISION
from multimodal_zoo.checkpoints.tables.emu3_vision_config import vision_node
from multimodal_zoo.registry import build

SMALL = {"codebook_size": 64, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [1]}


@pytest.mark.parametrize("naming", [EMU3_VISION, TRANSFORMERS_VISION])
def test_there_and_back(naming: Any) -> None:
    state = build(vision_node(SMALL)).state_dict()
    theirs = naming.save(state)
    back = naming.load(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    assert theirs.keys() != state.keys()


def test_counters_may_be_missing() -> None:
    state = build(vision_node(SMALL)).state_dict()
    theirs = {name: tensor for name, tensor in EMU3_VISION.save(state).items() if "num_batches_tracked" not in name}
    assert len(theirs) < len(state)
    assert EMU3_VISION.load(theirs).keys() == state.keys()


def test_a_kernel_that_is_no_point() -> None:
    theirs = EMU3_VISION.save(build(vision_node(SMALL)).state_dict())
    theirs["encoder.mid.attn_1.q.weight"] = torch.zeros(64, 64, 3, 3)
    with pytest.raises(CheckpointError, match="1 x 1"):
        EMU3_VISION.load(theirs)


def test_transformers_computes_the_same() -> None:
    transformers = pytest.importorskip("transformers.models.emu3.modeling_emu3")
    from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig

    torch.manual_seed(0)
    names = {"base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1, "attn_resolutions": [1]}
    config = Emu3VQVAEConfig(**names, hidden_size=64, codebook_size=64)
    peer = transformers.Emu3VQVAE(config).eval()
    ours = build(vision_node(config.to_dict())).eval()
    ours.load_state_dict(TRANSFORMERS_VISION.load(peer.state_dict()))
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        theirs = peer.encode(image, torch.tensor([[16, 24], [16, 24]])).image_tokens
        codes = ours.encode(image)
        assert torch.equal(codes, torch.stack(theirs))
        assert_close(ours.decode(codes), peer.decode(codes), atol=1e-5, rtol=1e-4)


def test_defaults_are_the_published_ones() -> None:
    from multimodal_zoo.zoo import declaration

    published = {k: v for k, v in declaration("emu3_vision_tokenizer").items() if k not in ("processor", "card")}
    made = vision_node({"model_type": "Emu3VisionVQ", "torch_dtype": "float32"})
    for part in ("encoder", "decoder"):
        made[part]["kernel"] = "sdpa"
    assert {**made, "frames_at_once": 8} == published


def test_channels_in_and_out_may_differ() -> None:
    model = build(vision_node({**SMALL, "in_channels": 4, "out_channels": 2}))
    codes = model.encode(torch.zeros(1, 4, 8, 8))
    assert model.decode(codes).shape == (1, 2, 8, 8)


def test_levels_that_do_not_exist_have_no_attention() -> None:
    assert vision_node({**SMALL, "attn_resolutions": [1, 3]})["encoder"]["attention_levels"] == [1]
    assert vision_node({**SMALL, "attn_resolutions": None})["decoder"]["attention_levels"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"double_z": True}, "double_z is true"),
        ({"double_latent": True}, "double_z is true"),
        ({"z_channels": 8}, "z_channels is 8 and embed_dim 4"),
    ],
)
def test_what_cannot_be(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=words):
        vision_node(change)
