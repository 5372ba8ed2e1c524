"""Learning to draw from visual embeddings: the network predicts the noise of noisy latents (arXiv 2006.11239)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.drawing_batch import DrawingBatch
from multimodal_zoo.objectives.drawn_from import DrawnFrom
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.decoders.visual_decoder import LatentDiffusion

#: What replaces a dropped condition: embeddings of no picture, as drawing has them, or zeros.
DROPPED = ("nothing", "zeros")


class Chances(NamedTuple):
    """What is drawn by chance for each picture, from its own seed.

    Attributes:
        steps: (rows,), long, of the noise schedule.
        noise: of the latents' shape, offset included.
        dropped: (rows,), bool, whether it is drawn without its condition.
    """

    steps: Tensor
    noise: Tensor
    dropped: Tensor


class Noised(NamedTuple):
    """Noisy latents, and what the network should say of them; both (rows, channels, height, width)."""

    latents: Tensor
    target: Tensor


@OBJECTIVES.register_module(name="denoising")
class Denoising(nn.Module):
    """Mean squared error of the predicted noise, or velocity, over random steps of the noise schedule.

    Only the network learns; whatever gives embeddings and latents is read without gradients. Freeze it with
    `optim.groups.only: [visual_decoder.unet.*]`.

    Args:
        drawn_from: what gives the embeddings (`encoded_pictures`, `imagined_pictures`).
        drop: probability that a picture is learnt without its embeddings, for guidance (published: 0.1).
        dropped: a name of `DROPPED`; which of them was published is not known, `nothing` is what drawing uses.
        noise_offset: deviation of a constant added to each channel's noise (0.1 for Emu2); 0 for none.

    Raises:
        ValueError: an unknown choice, no probability, or a negative offset.
    """

    def __init__(
        self, drawn_from: DrawnFrom, drop: float = 0.1, dropped: str = "nothing", noise_offset: float = 0.0
    ) -> None:
        super().__init__()
        if dropped not in DROPPED:
            raise ValueError(f"objective.dropped is {dropped!r}; it must be one of {', '.join(DROPPED)}")
        if not 0 <= drop <= 1 or noise_offset < 0:
            raise ValueError(
                f"objective.drop is {drop} and objective.noise_offset {noise_offset}; expected a probability, and 0 or "
                "more"
            )
        self.drawn_from, self.drop, self.dropped, self.noise_offset = drawn_from, drop, dropped, noise_offset

    def check(self, model: nn.Module) -> None:
        """Refuse a model that draws nothing, or not by a known rule.

        Raises:
            ValueError: with the key to change.
        """
        decoder: Any = getattr(model, "visual_decoder", None)
        if decoder is None:
            raise ValueError(
                f"objective denoising needs model.visual_decoder, which this {type(model).__name__} lacks: choose "
                "visual_decoder@model.visual_decoder=emu2, say"
            )
        kind = decoder.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"model.visual_decoder.scheduler.config.prediction_type is {kind!r}; denoising learns epsilon or "
                "v_prediction"
            )
        self.drawn_from.check(model)

    def forward(self, model: Any, batch: DrawingBatch) -> dict[str, Tensor]:
        """Loss of this process's pictures.

        Returns:
            "loss", whose mean over processes is that of the whole batch; "loss_weight", all processes' pictures;
            "noise_loss", the loss over all processes; "dropped", the share of pictures without their condition.
        """
        decoder: LatentDiffusion = model.visual_decoder
        with torch.no_grad():
            chances, latents = self.drawn(decoder, batch)
            condition = self.conditions(model, batch, chances.dropped)
            noised = self.noised(decoder, latents, chances)
        output = decoder.predict(noised.latents, chances.steps, condition.to(noised.latents), batch.framings)
        errors = (output.float() - noised.target.float()).square().flatten(1).mean(1)
        sums = torch.stack([errors.detach().sum(), errors.new_tensor(len(errors)), chances.dropped.to(errors).sum()])
        whole, rows, without = summed(sums)
        return {
            "loss": errors.sum() * world_size() / rows,
            "loss_weight": rows,
            "noise_loss": whole / rows,
            "dropped": without / rows,
        }

    def drawn(self, decoder: LatentDiffusion, batch: DrawingBatch) -> tuple[Chances, Tensor]:
        """What is drawn by chance, and latents of the pictures; each row depends on its seed alone."""
        dice = [torch.Generator().manual_seed(int(seed)) for seed in batch.seeds]
        latents = decoder.latents(batch.targets, dice)
        count = int(decoder.scheduler.config.num_train_timesteps)
        steps = torch.stack([torch.randint(count, (), generator=one) for one in dice])
        without = torch.stack([torch.rand((), generator=one) < self.drop for one in dice])
        noise = torch.stack([torch.randn(latents.shape[1:], generator=one) for one in dice])
        if self.noise_offset:
            offsets = [torch.randn((latents.shape[1], 1, 1), generator=one) for one in dice]
            noise = noise + self.noise_offset * torch.stack(offsets)
        device = latents.device
        return Chances(steps.to(device), noise.to(latents), without.to(device)), latents

    def conditions(self, model: Any, batch: DrawingBatch, dropped: Tensor) -> Tensor:
        """Embeddings (rows, tokens, width), some of them replaced."""
        found = self.drawn_from(model, batch)
        if not self.drop:
            return found
        nothing = torch.zeros_like(found) if self.dropped == "zeros" else self.drawn_from.nothing(model, batch)
        return torch.where(dropped[:, None, None], nothing.to(found), found)

    def noised(self, decoder: LatentDiffusion, latents: Tensor, chances: Chances) -> Noised:
        """Latents at their steps: `sqrt(a) z + sqrt(1 - a) noise`, `a` the schedule's product up to the step."""
        product = decoder.scheduler.alphas_cumprod.to(latents.device)[chances.steps].float()
        signal, rest = (one.sqrt().to(latents)[:, None, None, None] for one in (product, 1 - product))
        noisy = signal * latents + rest * chances.noise
        if decoder.scheduler.config.prediction_type == "epsilon":
            return Noised(noisy, chances.noise)
        return Noised(noisy, signal * chances.noise - rest * latents)
