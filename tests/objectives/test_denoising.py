"""Learning to draw: the loss by hand, chance by seed, dropped conditions, gradients, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.decoders.conditions import EmbeddingsAlone, SizedPictures
from multimodal_zoo.decoders.diffusion_parts import diffusion_scheduler, diffusion_unet, diffusion_vae
from multimodal_zoo.decoders.visual_decoder import LatentDiffusion
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.objectives.denoising import Denoising
from multimodal_zoo.objectives.drawing_batch import DrawingBatch
from multimodal_zoo.objectives.drawn_from import EncodedPictures, ImaginedPictures

WIDTH = 8
UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": [4, 8], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": WIDTH, "attention_head_dim": 2, "norm_num_groups": 2,
}  # fmt: skip
SIZED = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": WIDTH + 24,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": [4, 4], "down_block_types": ["DownEncoderBlock2D"] * 2, "latent_channels": 3,
    "up_block_types": ["UpDecoderBlock2D"] * 2, "norm_num_groups": 2, "scaling_factor": 0.2,
}  # fmt: skip


class Model(nn.Module):
    """A visual decoder behind an encoder that gives two embeddings of a picture."""

    def __init__(self, prediction: str = "epsilon", vae: bool = False, sized: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3, 2 * WIDTH)
        noise = {"beta_schedule": "scaled_linear", "prediction_type": prediction}
        self.visual_decoder = LatentDiffusion(
            unet=diffusion_unet({**UNET, **(SIZED if sized else {})}),
            scheduler=diffusion_scheduler("EulerDiscreteScheduler" if sized else "DDIMScheduler", noise),
            conditioning=SizedPictures() if sized else EmbeddingsAlone(),
            vae=diffusion_vae(VAE) if vae else None,
            safety_checker=None,
            size=8,
            steps=2,
            guidance=1.0,
        )

    def encode(self, images: CountedImages) -> Tensor:
        """Embeddings of the mean colour."""
        return self.encoder(images.pixels.mean((2, 3))).reshape(-1, WIDTH)


def batch(rows: int = 4, first: int = 0, size: int = 8) -> DrawingBatch:
    """Pictures of noise."""
    draw = torch.Generator().manual_seed(7)
    targets = torch.rand(8, 3, size, size, generator=draw)[first : first + rows] * 2 - 1
    seen = torch.rand(8, 3, 6, 6, generator=draw)[first : first + rows]
    framings = torch.tensor([[size, size, 0, 0, size, size]] * rows)
    seeds = torch.arange(100, 108)[first : first + rows]
    return DrawingBatch(targets, framings, seeds, CountedImages(seen, (2,) * rows), [str(n) for n in range(rows)])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sized", [False, True])
def test_the_loss_is_the_formula(prediction: str, sized: bool) -> None:
    model, given = Model(prediction, sized=sized), batch()
    found = Denoising(EncodedPictures(), drop=0.0)(model, given)
    decoder, errors = model.visual_decoder, []
    betas = torch.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2
    kept = (1 - betas).cumprod(0)
    condition = model.encode(given.seen).reshape(4, 2, WIDTH)
    for row, seed in enumerate(given.seeds.tolist()):
        dice = torch.Generator().manual_seed(seed)
        step = torch.randint(1000, (), generator=dice)
        torch.rand((), generator=dice)
        noise = torch.randn(3, 8, 8, generator=dice)
        signal, rest = kept[step].sqrt(), (1 - kept[step]).sqrt()
        latents = signal * given.targets[row] + rest * noise
        told = condition[row : row + 1]
        added = {"text_embeds": told.mean(1), "time_ids": given.framings[row : row + 1].float()} if sized else None
        output = decoder.unet(latents[None], step, encoder_hidden_states=told, added_cond_kwargs=added).sample[0]
        wanted = noise if prediction == "epsilon" else signal * noise - rest * given.targets[row]
        errors.append((output - wanted).square().mean())
    assert_close(found["loss"], torch.stack(errors).mean(), atol=2e-6, rtol=1e-5)
    assert_close(found["noise_loss"], found["loss"].detach())
    assert (float(found["loss_weight"]), float(found["dropped"])) == (4.0, 0.0)


def test_chance_depends_on_a_pictures_own_seed() -> None:
    """Latents of an autoencoder too: half batches give what a whole one gives."""
    model, objective = Model(vae=True), Denoising(EncodedPictures(), drop=0.5, noise_offset=0.1)
    with torch.no_grad():
        whole = objective(model, batch(4, size=16))["loss"]
        halves = [objective(model, batch(2, first, size=16))["loss"] for first in (0, 2)]
    assert_close(torch.stack(halves).mean(), whole)
    chances, _ = objective.drawn(model.visual_decoder, batch(4, size=16))
    plain, _ = Denoising(EncodedPictures()).drawn(model.visual_decoder, batch(4, size=16))
    offsets = chances.noise - plain.noise
    assert_close(offsets, offsets[..., :1, :1].expand_as(offsets), atol=1e-6, rtol=0)
    assert float(offsets.abs().max()) > 0


def test_latents_are_drawn_and_scaled() -> None:
    model, given = Model(vae=True), batch(3, size=16)
    _, latents = Denoising(EncodedPictures()).drawn(model.visual_decoder, given)
    vae = model.visual_decoder.vae
    assert vae is not None
    with torch.no_grad():
        found = vae.encode(given.targets).latent_dist
    noise = torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(int(s))) for s in given.seeds])
    assert_close(latents, (found.mean + found.std * noise) * 0.2)


@pytest.mark.parametrize("dropped", ["nothing", "zeros"])
def test_dropped_conditions_are_replaced(dropped: str) -> None:
    model, given = Model(), batch()
    objective = Denoising(EncodedPictures(), drop=1.0, dropped=dropped)
    found = objective.conditions(model, given, torch.tensor([True, False, True, False]))
    blank = model.encoder(torch.zeros(1, 3)).reshape(2, WIDTH) if dropped == "nothing" else torch.zeros(2, WIDTH)
    own = model.encode(given.seen).reshape(4, 2, WIDTH)
    assert_close(found, torch.stack([blank, own[1], blank, own[3]]))
    assert float(objective(model, given)["dropped"]) == 1.0


def test_gradients_reach_the_network_alone() -> None:
    model = Model(vae=True)
    Denoising(EncodedPictures())(model, batch(size=16))["loss"].backward()
    reached = {name.split(".")[0:2][-1] for name, one in model.named_parameters() if one.grad is not None}
    assert reached == {"unet"}
    assert all(one.grad is not None for one in model.visual_decoder.unet.parameters())


def test_what_does_not_fit_is_refused() -> None:
    objective = Denoising(EncodedPictures())
    with pytest.raises(ValueError, match=r"needs model\.visual_decoder, which this Linear lacks"):
        objective.check(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="prediction_type is 'sample'"):
        objective.check(Model("sample"))
    with pytest.raises(ValueError, match="which Model cannot: choose a model with a decoder"):
        Denoising(ImaginedPictures()).check(Model())
    with pytest.raises(ValueError, match="the data give no texts"):
        ImaginedPictures()(SimpleNamespace(), batch())
    for wrong in ({"drop": 1.5}, {"noise_offset": -0.1}):
        with pytest.raises(ValueError, match=r"objective\.drop is"):
            Denoising(EncodedPictures(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"objective\.dropped is 'ones'; it must be one of nothing, zeros"):
        Denoising(EncodedPictures(), dropped="ones")
    with pytest.raises(ValueError, match="as many rows in every field"):
        replace(batch(2), seeds=torch.zeros(1))
