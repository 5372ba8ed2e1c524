"""How far pictures are from what they should be: by pixels, and by features of a trained network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.beside import WithFrozen
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import OBJECTIVES

#: The networks of the package lpips, and the sizes of their first layers, by which a file is told.
NETWORKS = {"vgg": (64, 3, 3, 3), "alex": (64, 3, 11, 11)}


@OBJECTIVES.register_module(name="l2_distance")
class L2Distance(nn.Module):
    """Mean squared difference of all values."""

    def __init__(self) -> None:  # nn.Module's own takes anything
        super().__init__()

    def forward(self, made: Tensor, given: Tensor) -> Tensor:
        """A scalar of two tensors of one shape."""
        return F.mse_loss(made, given)


@OBJECTIVES.register_module(name="l1_distance")
class L1Distance(nn.Module):
    """Mean absolute difference of all values."""

    def __init__(self) -> None:  # nn.Module's own takes anything
        super().__init__()

    def forward(self, made: Tensor, given: Tensor) -> Tensor:
        """A scalar of two tensors of one shape."""
        return F.l1_loss(made, given)


@OBJECTIVES.register_module(name="lpips_distance")
class LpipsDistance(WithFrozen):
    """Distance of a trained network's features (LPIPS, arXiv 1801.03924), by the package lpips.

    The network is no submodule; see `WithFrozen`.

    Args:
        weights: torchvision's file of the network's ImageNet weights (`vgg16-397923af.pth`,
            `alexnet-owt-7be5be79.pth`); the layers on top come with the package. None with `random` alone.
        network: `vgg` or `alex`.
        random: whether the network stays as it is drawn, which is a distance too, but not the published one.

    Raises:
        ModuleNotFoundError: lpips is not installed.
        FileNotFoundError: no such file.
        ValueError: neither or both of file and `random`, an unknown network, or a file of something else.
    """

    def __init__(self, weights: str | None, network: str = "vgg", random: bool = False) -> None:
        if network not in NETWORKS:
            raise ValueError(f"objective.perceptual.network is {network!r}; expected {' or '.join(NETWORKS)}")
        if (weights is None) != random:
            raise ValueError(
                f"objective.perceptual: weights is {weights!r} and random is {random}; give the path of torchvision's "
                f"weights of {network} (nothing is downloaded), or weights=null random=true for a random network"
            )
        state = None if weights is None else _read(weights, network)
        lpips = needed("lpips", "lpips_distance", "perceptual")
        with warnings.catch_warnings():  # lpips calls torchvision in a way that torchvision calls old
            warnings.simplefilter("ignore", UserWarning)
            made = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        if state is not None:
            _fill(made.net, state)
        super().__init__(made)

    def forward(self, made: Tensor, given: Tensor) -> Tensor:
        """The mean over pictures, a scalar.

        Args:
            made: (..., 3, height, width), from -1 to 1.
            given: of the same shape.
        """
        return self.beside(made.flatten(0, -4), given.flatten(0, -4)).mean()


def _read(weights: str, network: str) -> dict[str, Tensor]:
    """Torchvision's tensors in a file."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"objective.perceptual.weights: no file {weights}") from None
    first = state.get("features.0.weight") if isinstance(state, dict) else None
    if first is None or tuple(first.shape) != NETWORKS[network]:
        raise ValueError(
            f"objective.perceptual.weights: {weights} holds no weights of torchvision's {network}, which begin with "
            f"features.0.weight of shape {NETWORKS[network]}"
        )
    return dict(state)


def _fill(trunk: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the layers of the network their weights; they bear the numbers of torchvision's."""
    for part in trunk.children():
        for number, layer in part.named_children():
            if isinstance(layer, nn.Conv2d):
                layer.load_state_dict({name: state[f"features.{number}.{name}"] for name in ("weight", "bias")})
