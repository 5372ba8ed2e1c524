"""The page of the docs says what the tests of the matrix run."""

from __future__ import annotations

from interchange_page import PAGE, page
from interchange_parts import DECODERS, IMAGE_ENCODERS, OBJECTIVES, TEXT_ENCODERS

from multimodal_zoo.catalogue import list_group


def test_the_page_is_what_the_declarations_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/matrix/interchange_page.py"


def test_no_kind_of_part_is_left_out() -> None:
    """Files that differ from a row in sizes alone share its row."""
    encoders = [part.option for part in (*IMAGE_ENCODERS, *TEXT_ENCODERS)]
    families = {"clip_vit", "clip_text", "declip_resnet", "declip_vit", "declip_text", "eva_vit", "eva_mim", "eva_text"}
    alone = [name for name in list_group("encoder") if not any(name.startswith(one) for one in families)]
    assert set(alone) - set(encoders) == {"timm_regnety_64gf"}
    assert all(any(option.startswith(family) for option in encoders) for family in families - {"eva_mim"})
    contrastive = {"contrastive", "video_contrastive", "clip", "slip", "filip", "declip", "defilip"}
    assert set(OBJECTIVES) == contrastive <= set(list_group("objective"))
    assert {part.option for part in DECODERS if not part.placed} <= set(list_group("decoder"))
