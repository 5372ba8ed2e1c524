"""From visual embeddings to pictures by latent diffusion (Emu, arXiv 2307.05222; Emu2, arXiv 2312.13286)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.decoders.conditions import Conditioning, Framing, rows_of
from multimodal_zoo.generation.guidance import guide
from multimodal_zoo.generation.sampling import row_seeds
from multimodal_zoo.registry import DECODERS

#: Pixels of a picture are between -1 and 1 where no autoencoder says otherwise.
CHANNELS = 3


@DECODERS.register_module(name="latent_diffusion")
class LatentDiffusion(nn.Module):
    """A diffusion network that draws what visual embeddings say, and the autoencoder between its latents and pixels.

    Args:
        unet: predicts the noise (`diffusion_unet`).
        scheduler: adds noise and takes it away (`diffusion_scheduler`).
        conditioning: what the network is told beside the embeddings.
        vae: the autoencoder (`diffusion_vae`); None: the network works on pixels.
        safety_checker: finds pictures that should not be shown; None for no such check.
        size: side of the pictures, in pixels.
        steps: of denoising.
        guidance: scale of classifier-free guidance.

    Attributes:
        condition_width: width of the visual embeddings.

    Raises:
        ValueError: parts that do not fit each other, with the key to change.
    """

    def __init__(
        self,
        unet: nn.Module,
        scheduler: Any,
        conditioning: Conditioning,
        vae: nn.Module | None,
        safety_checker: nn.Module | None,
        size: int,
        steps: int,
        guidance: float,
    ) -> None:
        super().__init__()
        conditioning.check(unet)
        channels = CHANNELS if vae is None else int(vae.config.latent_channels)
        if unet.config.in_channels != channels:
            where = "pixels (visual_decoder.vae is null) have" if vae is None else "visual_decoder.vae's latents have"
            raise ValueError(
                f"visual_decoder.unet.config.in_channels is {unet.config.in_channels}; {where} {channels} channels"
            )
        if steps < 1:
            raise ValueError(f"visual_decoder.steps is {steps}; expected 1 or more")
        self.unet, self.vae, self.safety_checker = unet, vae, safety_checker
        self.scheduler, self.conditioning = scheduler, conditioning
        self.size, self.steps, self.guidance = size, steps, guidance
        self.condition_width = int(unet.config.cross_attention_dim)

    @property
    def stride(self) -> int:
        """Pixels of a side of a latent."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def tile(self) -> int:
        """Pixels that both sides of a picture must be multiples of."""
        return int(self.stride * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def factor(self) -> float:
        """What latents are multiplied by."""
        return 1.0 if self.vae is None else float(self.vae.config.scaling_factor)

    def fresh_scheduler(self) -> Any:
        """A scheduler of the same settings without memory of earlier steps."""
        return type(self.scheduler).from_config(self.scheduler.config)

    def noise(self, dice: Sequence[torch.Generator], size: tuple[int, int]) -> Tensor:
        """The noise that pictures begin with, `(rows, channels, height, width)` of latents.

        Args:
            dice: what each row depends on; on the CPU, so that a seed means the same on every device.
            size: height and width in pixels.

        Raises:
            ValueError: a size that the latents do not tile.
        """
        if any(side < self.tile or side % self.tile for side in size):
            raise ValueError(f"size is {size[0]} x {size[1]} pixels; both sides must be multiples of {self.tile}")
        shape = (int(self.unet.config.in_channels), size[0] // self.stride, size[1] // self.stride)
        rows = [torch.randn(shape, generator=one) for one in dice]
        weight = next(self.unet.parameters())
        return torch.stack(rows).to(weight.device, weight.dtype)

    def predict(self, latents: Tensor, step: Tensor, condition: Tensor, framings: Tensor) -> Tensor:
        """The network's output for noisy latents `(rows, channels, height, width)`, of the same shape.

        Args:
            latents: scaled as the scheduler says.
            step: of the noise schedule, one number or (rows,).
            condition: visual embeddings `(rows, tokens, condition_width)`.
            framings: (rows, 6), see `Framing`.

        Raises:
            ValueError: embeddings of another width.
        """
        if condition.shape[-1] != self.condition_width:
            raise ValueError(
                f"visual embeddings of width {condition.shape[-1]}; visual_decoder.unet.config.cross_attention_dim is "
                f"{self.condition_width}: the decoder was made for another model"
            )
        added = self.conditioning.added(condition, framings)
        output: Tensor = self.unet(latents, step, encoder_hidden_states=condition, added_cond_kwargs=added).sample
        return output

    @torch.no_grad()
    def denoise(
        self,
        noise: Tensor,
        condition: Tensor,
        unconditional: Tensor | None,
        framing: Framing,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        dice: Sequence[torch.Generator] | None = None,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Latents of pictures, `(rows, channels, height, width)`.

        Both branches of guidance are rows of one batch, the conditional ones first.

        Args:
            noise: from `noise`.
            condition: visual embeddings `(rows, tokens, condition_width)`.
            unconditional: those that guidance leads away from, of the same shape; None for no guidance.
            framing: what of which picture is drawn.
            steps: of denoising; None takes the decoder's.
            guidance: 1 for none; None takes the decoder's.
            dice: what each row's further noise depends on, where the scheduler adds some (ancestral ones); None for
                torch's own generator.
            on_step: called with the number of network calls so far, of all of them, and the latents.

        Raises:
            ValueError: steps that the noise schedule does not have.
        """
        scale = self.guidance if guidance is None else guidance
        guided = unconditional is not None and scale != 1
        both = torch.cat([condition, unconditional]) if guided and unconditional is not None else condition
        scheduler = self._scheduled(self.steps if steps is None else steps, noise.device)
        draws = dice is not None and "generator" in inspect.signature(scheduler.step).parameters
        chance = {"generator": list(dice)} if draws and dice is not None else {}
        framings = rows_of(framing, len(both), noise.device)
        latents = noise * scheduler.init_noise_sigma
        for number, step in enumerate(scheduler.timesteps, start=1):
            seen = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, step)
            output = self.predict(seen, step, both, framings)
            if guided:
                wanted, other = output.chunk(2)
                output = guide(wanted, other, scale)
            latents = scheduler.step(output, step, latents, **chance).prev_sample
            if on_step is not None:
                on_step(number, len(scheduler.timesteps), latents)
        return latents

    def _scheduled(self, steps: int, device: torch.device) -> Any:
        scheduler = self.fresh_scheduler()
        most = int(scheduler.config.num_train_timesteps)
        if not 1 <= steps <= most:
            raise ValueError(f"{steps} steps of denoising; visual_decoder.scheduler has 1 to {most}")
        scheduler.set_timesteps(steps, device=device)
        return scheduler

    @contextmanager
    def _steady(self, vae: Any) -> Iterator[Any]:
        """The autoencoder in a type in which it does not overflow: SDXL's does in float16."""
        overflows = vae.dtype == torch.float16 and vae.config.force_upcast
        try:
            yield vae.float() if overflows else vae
        finally:
            if overflows:
                vae.half()

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        """Pictures `(rows, 3, height, width)` between 0 and 1, float32, of latents."""
        if self.vae is not None:
            with self._steady(self.vae) as vae:
                latents = vae.decode((latents / self.factor).to(vae.dtype)).sample
        return (latents.float() / 2 + 0.5).clamp(0, 1)

    def latents(self, pixels: Tensor, dice: Sequence[torch.Generator]) -> Tensor:
        """Latents of pictures `(rows, 3, height, width)` between -1 and 1, drawn from the autoencoder's distribution.

        Args:
            pixels: the pictures.
            dice: what the draw of each row depends on.
        """
        if self.vae is None:
            return pixels
        with torch.no_grad(), self._steady(self.vae) as vae:
            found = vae.encode(pixels.to(vae.dtype)).latent_dist
        noise = torch.stack([torch.randn(found.mean.shape[1:], generator=one) for one in dice])
        return (found.mean + found.std * noise.to(found.mean)) * self.factor

    def decode(
        self,
        condition: Tensor,
        unconditional: Tensor | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seeds: Sequence[int] | None = None,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Pictures of visual embeddings, `(rows, 3, height, width)` between 0 and 1.

        Args:
            condition: visual embeddings `(rows, tokens, condition_width)`.
            unconditional: as in `denoise`; one row serves all.
            size: side, or height and width, in pixels; None takes the decoder's.
            steps: as in `denoise`.
            guidance: as in `denoise`.
            seeds: one for each picture; None for 0, 1, 2, ...
            on_step: as in `denoise`.

        Raises:
            ValueError: a size or steps that do not fit, seeds for another number of pictures, or embeddings of another
                shape.
        """
        sides = size if isinstance(size, tuple) else (self.size, self.size) if size is None else (size, size)
        dice = [torch.Generator().manual_seed(seed) for seed in row_seeds(seeds, len(condition), "pictures")]
        noise = self.noise(dice, sides)
        condition = condition.to(noise)
        if unconditional is not None:
            if unconditional.shape[1:] != condition.shape[1:] or len(unconditional) not in (1, len(condition)):
                raise ValueError(
                    f"unconditional embeddings of shape {list(unconditional.shape)} for {list(condition.shape)}; "
                    "expected the same, or one row"
                )
            unconditional = unconditional.to(noise).expand_as(condition)
        latents = self.denoise(
            noise,
            condition,
            unconditional,
            Framing(sides, (0, 0), sides),
            steps=steps,
            guidance=guidance,
            dice=dice,
            on_step=on_step,
        )
        return self.pixels(latents)
