"""`${part:PLACE,NAME}`: a part of whatever lies somewhere stands in a slot of another model."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf.errors import OmegaConfBaseException

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.part_nodes import part_node
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.zoo import declaration

SMALL = ["model.decoder.blocks.depth=1", "model.decoder.width=64", "model.image_encoder.blocks.depth=1"]


@pytest.fixture(scope="module")
def emu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(zoo.create("emu_tiny", overrides=SMALL), tmp_path_factory.mktemp("runs") / "emu")


def test_parts_are_found_under_any_name(emu: Path, tmp_path: Path) -> None:
    assert part_node(str(emu), "image")["type"] == "vision_transformer"
    decoder = part_node(str(emu), "decoder")
    assert (decoder["type"], decoder["width"]) == ("causal_decoder", 64)
    alone = save_model(zoo.from_pretrained(emu, part="decoder"), tmp_path / "alone")
    assert part_node(str(alone), "decoder") == decoder


def test_a_slot_takes_the_part_and_changes_to_it(emu: Path) -> None:
    words = [f"model.image=${{part:{emu},image}}", "model.text.blocks.depth=1"]
    node = declaration("clip_tiny", words)
    assert (node["image_projection"]["width"], node["processor"]["images"]["size"]) == (128, 48)
    changed = declaration("clip_tiny", [f'model.image="${{part:{emu},image,{{image_size: 32}}}}"'])
    assert (changed["image"]["image_size"], changed["processor"]["images"]["size"]) == (32, 32)
    assert str(emu) not in str(node)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${part:EMU,text}", "part:.*emu,text: a emu without it; it has image, decoder"),
        ("${part:EMU,imge}", "no part is called 'imge'; choose image, text, decoder, vision_tokenizer"),
        ("${part:EMU/nowhere,image}", "no checkpoint at .*nowhere"),
        ('"${part:EMU,image,{image_sice: 32}}"', "no key named 'image_sice'; closest: image_size"),
    ],
)
def test_what_is_not_there_is_told(emu: Path, value: str, message: str) -> None:
    with pytest.raises(OmegaConfBaseException, match=f"model\\.image: .*{message}"):
        declaration("clip_tiny", [f"model.image={value.replace('EMU', str(emu))}"])


def test_a_model_of_another_kind_is_no_such_part(emu: Path, tmp_path: Path) -> None:
    alone = save_model(zoo.from_pretrained(emu, part="decoder"), tmp_path / "alone")
    with pytest.raises(ValueError, match=r"alone,image: a causal_decoder without it; it has no part"):
        part_node(str(alone), "image")
