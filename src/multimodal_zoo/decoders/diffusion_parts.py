"""Parts of latent diffusion from diffusers, built from its own configurations: U-Net, autoencoder, noise schedule.

They keep diffusers' names of tensors and of configuration keys, so that the published `unet/`, `vae/` and `scheduler/`
folders describe them. diffusers is imported when a part is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from multimodal_zoo.packages import needed
from multimodal_zoo.registry import DECODERS


def from_diffusers(name: str, purpose: str) -> Any:
    """A class of diffusers.

    Raises:
        ModuleNotFoundError: no diffusers, with how to install it.
        ValueError: no such class.
    """
    found = getattr(needed("diffusers", purpose, "diffusion"), name, None)
    if found is None:
        raise ValueError(f"{purpose}: diffusers has no class {name!r}")
    return found


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what only describes the file it came from; lists as tuples where diffusers has these."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


@DECODERS.register_module(name="diffusion_unet")
def diffusion_unet(config: Mapping[str, Any]) -> nn.Module:
    """The network that predicts noise, conditioned by cross-attention (arXiv 2112.10752): `UNet2DConditionModel`.

    Args:
        config: as in `unet/config.json`. `attention_head_dim` is the number of heads there.

    Returns:
        the network, with random weights.
    """
    network: nn.Module = from_diffusers("UNet2DConditionModel", "diffusion_unet")(**settings(config))
    return network


@DECODERS.register_module(name="diffusion_vae")
def diffusion_vae(config: Mapping[str, Any]) -> nn.Module:
    """The autoencoder between pixels and latents (arXiv 2112.10752): `AutoencoderKL`.

    Args:
        config: as in `vae/config.json`; `scaling_factor` is what latents are multiplied by.

    Returns:
        the autoencoder, with random weights.
    """
    network: nn.Module = from_diffusers("AutoencoderKL", "diffusion_vae")(**settings(config))
    return network


@DECODERS.register_module(name="diffusion_scheduler")
def diffusion_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """How noise is added and taken away: any scheduler of diffusers.

    Args:
        name: of the class, `PNDMScheduler`, `EulerDiscreteScheduler`, `DDIMScheduler`, ...
        config: as in `scheduler/scheduler_config.json`.

    Raises:
        ValueError: no such scheduler.
    """
    if not name.endswith("Scheduler"):
        raise ValueError(f"visual_decoder.scheduler.name is {name!r}; expected a class such as EulerDiscreteScheduler")
    with torch.device("cpu"):  # it computes with its tables while it is made, on whatever device models are
        return from_diffusers(name, "diffusion_scheduler")(**settings(config))
