"""Trains a small tokenizer without batch norm against a discriminator, alone or as one of two processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from multimodal_zoo.objectives.adversarial import Adversarial
from multimodal_zoo.objectives.batch import PixelBatch
from multimodal_zoo.objectives.discriminators import PatchDiscriminator
from multimodal_zoo.objectives.pixel_distances import L2Distance
from multimodal_zoo.objectives.vision_tokenizer import VisionTokenizerLoss
from multimodal_zoo.tokenizers.emu3_vision import Reconstruction
from multimodal_zoo.tokenizers.quantizers import EmaQuantizer
from multimodal_zoo.training.adversarial_module import AdversarialModule
from multimodal_zoo.training.groups import ParameterRules
from multimodal_zoo.training.schedule import Constant

STEPS, BATCH = 3, 4


class Tiny(nn.Module):
    """Two convolutions around a codebook."""

    codebook_size = 6

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 4, 4, stride=4), nn.ConvTranspose2d(4, 3, 4, stride=4)
        self.quantizer = EmaQuantizer(self.codebook_size, 4, decay=0.7, revive_below=0.0)
        self.quantizer.codebook.normal_()

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder.weight

    def forward(self, pixels: Tensor) -> Reconstruction:
        found = self.quantizer(self.encoder(pixels).movedim(1, -1))
        return Reconstruction(self.decoder(found.vectors.movedim(-1, 1)), found.codes, found.commitment, found.codebook)


class Loader:
    """Iterates over batches."""

    def __init__(self, batches: list[PixelBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PixelBatch]:
        return iter(self.batches)


class Batches(lightning.LightningDataModule):
    """Each process's share of the same global batches."""

    def train_dataloader(self) -> Loader:
        generator = torch.Generator().manual_seed(1)
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        pixels = [torch.randn(BATCH, 3, 16, 16, generator=generator) for _ in range(STEPS)]
        return Loader([PixelBatch(one.chunk(ranks)[rank], ["a"] * (BATCH // ranks)) for one in pixels])


def train(out: Path, processes: int) -> None:
    """Write the last figures and all weights to a file."""
    torch.manual_seed(0)
    model = Tiny()
    objective = VisionTokenizerLoss(L2Distance(), adversarial=Adversarial(PatchDiscriminator(32, 1), start=1))
    module = AdversarialModule(
        model,
        objective,
        ParameterRules(),
        lambda groups: torch.optim.AdamW(groups, eps=1e-2),  # Adam's first steps would turn rounding into signs
        lr=1e-2,
        weight_decay=0.0,
        schedule=Constant(),
        config={},
        clip=0.5,
    )
    options: dict[str, Any] = {"strategy": "ddp"} if processes > 1 else {}
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        max_steps=STEPS,
        max_epochs=1,
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(module, datamodule=Batches())
    if trainer.is_global_zero:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save({"figures": figures, "state": module.state_dict()}, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
