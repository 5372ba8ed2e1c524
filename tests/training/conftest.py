"""A dual encoder and data small enough for a training run in a second."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))  # the tests' own data

PAIRS = 24
VOCABULARY = 13


@pytest.fixture(autouse=True, scope="module")
def _pixels(pixels: None) -> None:
    """No report is looked at here."""


class TinyDual(nn.Module):
    """Two linear towers with dropout (so that the random state matters)."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 8), nn.LayerNorm(8), nn.Dropout(0.2))
        self.text = nn.Embedding(VOCABULARY, 8)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def encode_image(self, images: Tensor) -> Tensor:
        return F.normalize(self.image(images), dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        return F.normalize(self.text(ids).mean(dim=1), dim=-1)

    def scale(self) -> Tensor:
        return self.logit_scale.exp().clamp(max=100.0)

    def forward(self, images: Tensor, ids: Tensor) -> Any:
        from multimodal_zoo.encoders.outputs import Embeddings

        return Embeddings(self.encode_image(images), self.encode_text(ids), self.scale())


def pairs(batch_size: int, seed: int = 0) -> list[Any]:
    from multimodal_zoo.objectives.batch import ImageTextBatch

    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(PAIRS, 3, 4, 4, generator=generator)
    ids = torch.randint(VOCABULARY, (PAIRS, 3), generator=generator)
    return [
        ImageTextBatch(
            images[i : i + batch_size], ids[i : i + batch_size], [f"pair_{n}" for n in range(i, i + batch_size)]
        )
        for i in range(0, PAIRS, batch_size)
    ]


class Batches:
    """A loader of fixed batches that starts where the position says."""

    def __init__(self, batches: list[Any], start: Callable[[], int] = lambda: 0) -> None:
        self.batches = batches
        self.start = start

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        torch.rand(3)  # torch's own loader draws a seed here
        yield from self.batches[self.start() :]


def data_module(train: list[Any], validation: list[Any] | None) -> Any:
    """A data module of fixed batches that knows how many of the epoch's were taken."""
    from lightning import LightningDataModule

    class Data(LightningDataModule):
        taken = 0

        def train_dataloader(self) -> Batches:
            return Batches(train, lambda: self.taken % len(train))

        def val_dataloader(self) -> Any:
            return Batches(validation) if validation else []

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.taken += self.trainer.training
            return batch

        def state_dict(self) -> dict[str, Any]:
            return {"taken": self.taken}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.taken = state_dict["taken"]

    return Data()


def recipe(**changes: Any) -> dict[str, Any]:
    """A complete small recipe as a plain dict; `changes` replace top-level nodes or update mappings."""
    base: dict[str, Any] = {
        "seed": 0,
        "model": {},
        "objective": {"type": "contrastive"},
        "optim": {"_target_": "torch.optim.AdamW", "lr": 0.05, "weight_decay": 0.1, "fused": True},
        "schedule": {"_target_": "multimodal_zoo.training.schedule.WarmupCosine", "warmup": 2},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 6,
            "log_every_n_steps": 1,
            "gradient_clip_val": 1.0,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        },
        "callbacks": {},
        "logger": {},
    }
    for key, value in changes.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) else value
    return base


@pytest.fixture
def tiny() -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return TinyDual()

    return make


@pytest.fixture
def fit(tmp_path: Any, tiny: Callable[[], nn.Module]) -> Callable[..., Any]:
    """Train the tiny model on fixed batches; gives the module and the trainer."""

    def run(
        folder: str = "run",
        checkpoint: Any = None,
        batches: Any = None,
        validation: Any = None,
        model: nn.Module | None = None,
        **changes: Any,
    ):
        from multimodal_zoo.training import assemble
        from multimodal_zoo.training.logs import quieten

        quieten()
        config = recipe(**changes)
        place = tmp_path / folder
        module = assemble.objective_module(config, model or tiny())
        trainer = assemble.trainer(config, place, assemble.callbacks(config), assemble.loggers(config, place))
        data = data_module(batches or pairs(8), validation)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return module, trainer

    return run


def view_model(*overrides: str) -> nn.Module:
    """A narrow dual encoder with every head, over 32-pixel images and 64 ids."""
    from omegaconf import OmegaConf

    from multimodal_zoo.config import compose
    from multimodal_zoo.registry import build

    heads = [f"+head@model.heads.{name}={name}" for name in ("simclr", "simsiam", "masked_words", "token_wise")]
    sizes = ["embed_dim=16", "image.width=32", "image.image_size=32", "image.blocks.depth=1", "text.width=32"]
    sizes += ["text.blocks.depth=1", "text.vocab_size=64", "text.context_length=8", "heads.simclr.hidden=12"]
    sizes += ["heads.simsiam.hidden=12", "heads.simsiam.bottleneck=6", "heads.token_wise.embed_dim=8"]
    config = compose(
        None,
        [
            "+model=clip_tiny",
            "encoder@model.image=clip_vit_tiny",
            *heads,
            *(f"model.{one}" for one in sizes),
            *overrides,
        ],
    )
    node = OmegaConf.to_container(config.model, resolve=True)
    assert isinstance(node, dict)
    torch.manual_seed(0)
    return build({key: value for key, value in node.items() if key not in ("processor", "card")}, path="model")


def view_batches(batch_size: int, seed: int = 0) -> list[Any]:
    """Batches of all views: three of the images, three of the texts; ids 61 to 63 are mask, start and end."""
    from multimodal_zoo.objectives.batch import MultiViewBatch

    generator = torch.Generator().manual_seed(seed)
    images = {name: torch.randn(PAIRS, 3, 32, 32, generator=generator) for name in ("plain", "first", "second")}
    words = torch.randint(1, 61, (PAIRS, 6), generator=generator)
    words[:, 0], words[:, -1] = 62, 63
    masked, labels = words.clone(), torch.full_like(words, -100)
    masked[:, 2], labels[:, 2] = 61, words[:, 2]
    augmented = words.clone()
    augmented[:, 1:5] = words[:, 1:5].flip(1)
    texts = {"plain": words, "masked": masked, "augmented": augmented}
    return [
        MultiViewBatch(
            {name: view[i : i + batch_size] for name, view in images.items()},
            {name: view[i : i + batch_size] for name, view in texts.items()},
            {"masked": labels[i : i + batch_size]},
            [f"pair_{n}" for n in range(i, min(i + batch_size, PAIRS))],
        )
        for i in range(0, PAIRS, batch_size)
    ]


def objective_node(*overrides: str) -> dict[str, Any]:
    """An objective's node, the queue being small: `objective_node("+objective=declip", ...)`."""
    from omegaconf import OmegaConf

    from multimodal_zoo.config import compose

    node = OmegaConf.to_container(compose(None, ["+model.embed_dim=16", *overrides]).objective, resolve=True)
    assert isinstance(node, dict)
    queue = node["parts"].get("nearest_neighbour", {}).get("queue")
    if queue:
        queue["size"] = 20
    return {str(key): value for key, value in node.items()}


@pytest.fixture
def views() -> Any:
    """Makers of a model, of batches and of objectives' nodes for several views."""
    from types import SimpleNamespace

    return SimpleNamespace(model=view_model, batches=view_batches, objective=objective_node)


@pytest.fixture
def batches() -> Callable[..., list[Any]]:
    return pairs
