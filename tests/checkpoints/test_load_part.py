"""One tower from any file, and files of another resolution or patch size, with every tensor accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.store import load_part, load_weights, recognise, save_model
from multimodal_zoo.checkpoints.tables import eva_clip
from multimodal_zoo.checkpoints.tables.eva_clip_config import original_node
from multimodal_zoo.zoo import build_model

VISION = {"image_size": 28, "patch_size": 7, "width": 32, "layers": 2, "head_width": 16, "mlp_ratio": 2.6667}
VISION |= {"rope": True, "pt_hw_seq_len": 4, "intp_freq": True, "naiveswiglu": True, "subln": True}
TEXT = {"context_length": 6, "vocab_size": 31, "width": 16, "heads": 2, "layers": 1}


def model(seed: int = 0, device: str | None = None, **vision: Any) -> Any:
    config = {"embed_dim": 12, "vision_cfg": {**VISION, **vision}, "text_cfg": TEXT}
    return build_model(original_node(config), seed=seed, device=device)


@pytest.fixture
def trained() -> Any:
    made = model()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + 0.05)
    return made


@pytest.fixture
def state(trained: Any) -> dict[str, Tensor]:
    return eva_clip.ORIGINAL.save(trained.state_dict())


def write(content: dict[str, Any], path: Path) -> Path:
    torch.save({key: value.clone() if isinstance(value, Tensor) else value for key, value in content.items()}, path)
    return path


def same(found: Any, wanted: Any) -> None:
    expected = wanted.state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def differs(found: Any, wanted: Any) -> bool:
    expected = wanted.state_dict()
    return any(not torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


def test_a_tower_comes_from_a_whole_file(tmp_path: Path, trained: Any, state: dict[str, Tensor]) -> None:
    path, receiver = write(state, tmp_path / "whole.pt"), model(seed=1)
    result = load_part(receiver, "image", path)
    same(receiver.image, trained.image)
    assert differs(receiver.text, trained.text)
    assert differs(receiver.image_projection, trained.image_projection)
    assert set(result.left_out) == {name for name in state if not name.startswith("visual.")} | {
        "visual.head.weight",
        "visual.head.bias",
    }
    result = load_part(receiver, "text", path, projection=True)
    same(receiver.text, trained.text)
    same(receiver.text_projection, trained.text_projection)
    assert "logit_scale" in result.left_out


def test_a_tower_comes_from_a_folder_of_ours_and_from_other_namings(tmp_path: Path, trained: Any) -> None:
    save_model(trained, tmp_path / "ours")
    root = eva_clip.ROOT_TEXT.save(trained.state_dict())
    for source in (tmp_path / "ours", write({"state_dict": root}, tmp_path / "root.pt")):
        receiver = model(seed=1)
        load_part(receiver, "image", source, projection=True)
        same(receiver.image, trained.image)
        same(receiver.image_projection, trained.image_projection)
        load_part(receiver, "text", recognise(source, {}))
        same(receiver.text, trained.text)


def test_a_tower_comes_from_a_file_of_its_own(tmp_path: Path, trained: Any, state: dict[str, Tensor]) -> None:
    bare = {name.removeprefix("visual."): t for name, t in state.items() if name.startswith("visual.")}
    receiver = model(seed=1)
    result = load_part(receiver, "image", write(bare, tmp_path / "bare.pt"), projection=True)
    same(receiver.image, trained.image)
    assert result.left_out == ()
    ours = trained.image.state_dict()
    receiver = model(seed=1)
    load_part(receiver, "image", write(ours, tmp_path / "ours.pt"))
    same(receiver.image, trained.image)


def test_a_tower_of_masked_image_modelling_lacks_a_norm_that_starts_as_identity(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    masked = {name.removeprefix("visual."): t for name, t in state.items() if name.startswith("visual.")}
    masked = {name: t for name, t in masked.items() if "inner_attn_ln" not in name and "head" not in name}
    masked |= {"mask_token": torch.ones(1, 1, 32), "lm_head.weight": torch.ones(3, 32), "lm_head.bias": torch.ones(3)}
    masked["blocks.0.attn.rope.freqs_cos"] = torch.ones(4, 4, 16)
    path, receiver = write({"model": masked}, tmp_path / "mim.pt"), model(seed=1)
    result = load_part(receiver, "image", path)
    assert set(result.left_out) >= {"mask_token", "lm_head.weight", "lm_head.bias"}
    inner = receiver.image.blocks.layers[1].attention.inner_norm
    assert bool((inner.weight == 1).all())
    assert not inner.bias.any()
    assert torch.equal(receiver.image.pool.norm.weight, state["visual.norm.weight"])
    with pytest.raises(CheckpointMismatch, match="image_projection"):
        load_part(model(seed=1), "image", path, projection=True)


def test_a_part_on_meta_takes_the_type_asked_for(tmp_path: Path, trained: Any, state: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    path = write(half, tmp_path / "half.pt")
    receiver = model(device="meta")
    load_part(receiver, "image", path, dtype=torch.float16)
    assert {p.dtype for p in receiver.image.parameters()} == {torch.float16}
    assert all(p.is_meta for p in receiver.text.parameters())
    receiver = model(device="meta")
    load_part(receiver, "image", path)
    assert {p.dtype for p in receiver.image.parameters()} == {torch.float32}
    assert_close(receiver.image.positions.weight, trained.image.positions.weight, atol=1e-3, rtol=1e-3)


def test_what_is_left_out_is_not_read(tmp_path: Path, state: dict[str, Tensor], monkeypatch: Any) -> None:
    path, joined = write(state, tmp_path / "whole.pt"), []
    monkeypatch.setattr(torch, "cat", lambda tensors, *a, **k: joined.append(tensors))
    load_part(model(seed=1), "image", path)
    assert not joined


def test_parts_that_do_not_fit_are_told(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = write({**state, "visual.strange": torch.ones(2)}, tmp_path / "strange.pt")
    with pytest.raises(CheckpointMismatch, match=r"(?s)unexpected.*visual\.strange"):
        load_part(model(), "image", path)
    with pytest.raises(CheckpointMismatch, match=r"(?s)misshapen.*image\.patches\.weight"):
        load_part(model(width=48), "image", write(state, tmp_path / "whole.pt"))
    with pytest.raises(ValueError, match=r"part='audio': expected image or text"):
        load_part(model(), "audio", path)
    with pytest.raises(ValueError, match="has text"):
        load_part(torch.nn.ModuleDict({"image": model().image}), "text", path)


def resized(table: Tensor, new: tuple[int, int]) -> Tensor:
    """Positions with one class token on a 4x4 grid, at another grid."""
    grid = table[1:].reshape(4, 4, -1).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat((table[:1], grid[0].permute(1, 2, 0).flatten(0, 1)))


@pytest.mark.parametrize(("image_size", "patch_size"), [(42, 7), (27, 9), (36, 9), (28, 7)])
@pytest.mark.parametrize("device", [None, "meta"])
def test_other_sizes_are_resized_on_request(
    tmp_path: Path, trained: Any, state: dict[str, Tensor], image_size: int, patch_size: int, device: str | None
) -> None:
    path, side = write(state, tmp_path / "whole.pt"), image_size // patch_size
    receiver = model(seed=1, device=device, image_size=image_size, patch_size=patch_size)
    if (side, patch_size) != (4, 7):
        with pytest.raises(CheckpointMismatch, match="resize=True interpolates them"):
            load_weights(receiver, path)
    load_weights(receiver, path, resize=True)
    assert_close(receiver.image.positions.weight, resized(trained.image.positions.weight, (side, side)))
    kernel = F.interpolate(state["visual.patch_embed.proj.weight"], size=(patch_size, patch_size), mode="bicubic")
    assert_close(receiver.image.patches.weight.detach(), kernel)
    same(receiver.text, trained.text)
    part = model(seed=1, image_size=image_size, patch_size=patch_size)
    load_part(part, "image", path, resize=True)
    same(part.image, receiver.image)


def test_resizing_reports_what_it_cannot_fit(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["visual.pos_embed"] = state["visual.pos_embed"][:, :-1]
    path = write(state, tmp_path / "odd.pt")
    with pytest.raises(CheckpointMismatch, match=r"positions\.weight \[16, 32\], the model has \[37, 32\]"):
        load_weights(model(image_size=42), path, resize=True)
    with pytest.raises(CheckpointMismatch, match="unexpected"):
        load_weights(model(image_size=42), write({**state, "x.y": torch.ones(3)}, path), resize=True)


def test_half_precision_positions_are_resized_in_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    receiver = model(device="meta", image_size=42)
    load_weights(receiver, write(half, tmp_path / "half.pt"), dtype=torch.float16, resize=True)
    table = receiver.image.positions.weight
    assert table.dtype == torch.float16
    assert_close(table, resized(half["visual.pos_embed"][0].float(), (6, 6)).half())


@pytest.mark.parametrize("size", [(28, 28), (42, 42), (14, 56), (35, 21)])
def test_any_resolution_is_that_of_a_model_built_for_it(trained: Any, size: tuple[int, int]) -> None:
    """Positions and rotary tables on the fly give what a freshly built model of that grid with resized ones gives."""
    images, rows, columns = torch.randn(2, 3, *size), size[0] // 7, size[1] // 7
    fresh = model(seed=1)
    load_into(fresh, trained.state_dict())
    table = resized(trained.image.positions.weight.detach(), (rows, columns))
    fresh.image.positions = torch.nn.Identity()
    fresh.image.positions.forward = lambda tokens, grid: tokens + table  # type: ignore[method-assign]
    with torch.no_grad():
        assert_close(trained.encode_image(images), fresh.encode_image(images), atol=1e-6, rtol=1e-5)
        if rows == columns:
            built = model(seed=1, image_size=size[0])
            built.load_state_dict({**trained.state_dict(), "image.positions.weight": table})
            assert_close(trained.encode_image(images), built.encode_image(images), atol=1e-6, rtol=1e-5)
