"""Folders that parts of the matrix lie in, made once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the declarations of the matrix

#: Sizes of language models that transformers writes.
LANGUAGE = {
    "vocab_size": 1800, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256, "pad_token_id": None,
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _small_open_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An architecture of open_clip of a moment's size, declared as open_clip has it done."""
    import open_clip

    file = tmp_path_factory.mktemp("open_clip") / "ViT-matrix.json"
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    file.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(file)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run whose image tower other models take, and language models as transformers writes them."""
    import transformers
    from interchange_slots import DUAL, below

    from multimodal_zoo.checkpoints.store import save_model
    from multimodal_zoo.zoo import create

    root = tmp_path_factory.mktemp("places")
    tower = ["width=64", "image_size=64", "channels=[16,32,64]"]
    found = {
        "RUN": save_model(create("clip_tiny", overrides=[*DUAL.small, *below("model.image", tower)]), root / "run")
    }
    sizes: dict[str, Any] = LANGUAGE
    for name, family in (("LLAMA", "Llama"), ("QWEN2", "Qwen2")):
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**sizes)
        getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(root / name)
        found[name] = root / name
    return found


@pytest.fixture(scope="session")
def emu3_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a decoder and a visual tokenizer."""
    from interchange_parts import VISUAL_TOKENIZERS
    from interchange_slots import EMU3

    from multimodal_zoo.checkpoints.store import save_model
    from multimodal_zoo.zoo import create

    return save_model(
        create("emu3_tiny", overrides=EMU3.words(VISUAL_TOKENIZERS[0])), tmp_path_factory.mktemp("emu3") / "run"
    )
