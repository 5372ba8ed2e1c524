"""The loss of a visual tokenizer: reconstruction by pixels and features, and the two terms of the codebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.processes import summed
from multimodal_zoo.objectives.adversarial import Adversarial
from multimodal_zoo.objectives.batch import PixelBatch
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.tokenizers.emu3_vision import Emu3VisionTokenizer, Reconstruction


class TokenizerLosses(NamedTuple):
    """The terms of one batch.

    Attributes:
        distance: of the reconstruction, weighted; what the adversarial part is balanced against.
        codebook: of latents and entries, weighted.
        made: the reconstruction, with its gradient.
        figures: everything that is worth a log line, without gradients.
    """

    distance: Tensor
    codebook: Tensor
    made: Tensor
    figures: dict[str, Tensor]


@OBJECTIVES.register_module(name="vision_tokenizer_loss")
class VisionTokenizerLoss(nn.Module):
    """Reconstruction + perceptual + commitment + codebook + adversarial loss (arXiv 2409.18869, section 2.2).

    The paper names the terms and no weights. The adversarial part needs a second optimiser: a recipe with one is
    trained by `AdversarialModule`, which adds it; called on its own the objective leaves it out.

    Args:
        pixels: distance by pixels (`l2_distance`, `l1_distance`).
        commitment_weight: factor on the distance that draws latents to their entries (0.25: arXiv 1711.00937).
        codebook_weight: factor on the distance that draws entries to latents.
        perceptual: distance by features (`lpips_distance`), or None.
        perceptual_weight: factor on it.
        adversarial: the discriminator and its settings (`adversarial`), or None.
    """

    def __init__(
        self,
        pixels: nn.Module,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 1.0,
        adversarial: Adversarial | None = None,
    ) -> None:
        super().__init__()
        self.pixels = pixels
        self.perceptual = perceptual
        self.adversarial = adversarial
        self.commitment_weight, self.codebook_weight = commitment_weight, codebook_weight
        self.perceptual_weight = perceptual_weight

    def check(self, model: nn.Module) -> None:
        """Refuse a model that is no visual tokenizer.

        Raises:
            ValueError: it has no quantiser.
        """
        if not hasattr(model, "quantizer"):
            raise ValueError(
                f"objective vision_tokenizer_loss needs a visual tokenizer, not {type(model).__name__}: choose "
                "model=emu3_vision_tiny"
            )

    def terms(self, model: Emu3VisionTokenizer, batch: PixelBatch) -> TokenizerLosses:
        """The terms of a batch without the adversarial one."""
        found = model(batch.pixels)
        distance = self.pixels(found.pixels, batch.pixels)
        figures = {"reconstruction": distance}
        if self.perceptual is not None:
            perceptual = self.perceptual(found.pixels, batch.pixels)
            figures["perceptual"] = perceptual
            distance = distance + self.perceptual_weight * perceptual
        codebook = self.commitment_weight * found.commitment + self.codebook_weight * found.codebook
        figures |= {"commitment": found.commitment, **codebook_use(found, model.codebook_size)}
        detached = {name: value.detach() for name, value in figures.items()}
        return TokenizerLosses(distance, codebook, found.pixels, detached)

    def forward(self, model: Emu3VisionTokenizer, batch: PixelBatch) -> dict[str, Tensor]:
        """Loss and figures of a batch, without the adversarial part.

        Args:
            model: a visual tokenizer.
            batch: pictures or clips.

        Returns:
            "loss", "reconstruction", "perceptual" if there is one, "commitment", "perplexity" (entries that would be
            as even as those of this batch, up to the codebook's size) and "usage" (the share of entries that occur).
        """
        terms = self.terms(model, batch)
        return {"loss": terms.distance + terms.codebook, **terms.figures}


@torch.no_grad()
def codebook_use(found: Reconstruction, codebook_size: int) -> dict[str, Tensor]:
    """Perplexity and usage of the codebook in a batch of all processes."""
    counts = summed(torch.bincount(found.codes.flatten(), minlength=codebook_size).float())
    shares = counts / counts.sum()
    return {"perplexity": torch.special.entr(shares).sum().exp(), "usage": (counts > 0).float().mean()}
