"""The tokenizer's loss: its terms, use of the codebook, distances by features, the adversarial part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.objectives.adversarial import Adversarial
from multimodal_zoo.objectives.batch import PixelBatch
from multimodal_zoo.objectives.discriminators import ClipDiscriminator, MixedDiscriminator, PatchDiscriminator
from multimodal_zoo.objectives.pixel_distances import L1Distance, L2Distance, LpipsDistance
from multimodal_zoo.objectives.vision_tokenizer import VisionTokenizerLoss, codebook_use
from multimodal_zoo.tokenizers.emu3_vision import Reconstruction


class Fixed(nn.Module):
    """Gives the same reconstruction whatever it sees."""

    codebook_size = 8

    def __init__(self, found: Reconstruction) -> None:
        super().__init__()
        self.found = found
        self.quantizer = nn.Identity()

    def forward(self, pixels: Tensor) -> Reconstruction:
        return self.found


def reconstruction(pixels: Tensor) -> Reconstruction:
    codes = torch.tensor([[[0, 0], [3, 3]]])
    return Reconstruction(pixels, codes, torch.tensor(0.5), torch.tensor(0.25))


def test_the_terms_add_up() -> None:
    given, made = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    batch = PixelBatch(given, ["a"])
    for distance, expected in ((L2Distance(), 0.25), (L1Distance(), 0.5)):
        loss = VisionTokenizerLoss(distance, commitment_weight=2.0, codebook_weight=4.0)
        found = loss(Fixed(reconstruction(made)), batch)
        assert float(found["loss"].detach()) == pytest.approx(expected + 2.0 * 0.5 + 4.0 * 0.25)
        assert float(found["reconstruction"]) == pytest.approx(expected)
        assert not found["reconstruction"].requires_grad
        assert found["loss"].requires_grad


def test_a_perceptual_term_is_weighted() -> None:
    given, made = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    loss = VisionTokenizerLoss(L2Distance(), perceptual=L1Distance(), perceptual_weight=3.0)
    found = loss(Fixed(reconstruction(made)), PixelBatch(given, ["a"]))
    assert float(found["loss"]) == pytest.approx(0.25 + 3 * 0.5 + 0.25 * 0.5 + 0.25)
    assert float(found["perceptual"]) == pytest.approx(0.5)


def test_use_of_the_codebook() -> None:
    found = codebook_use(reconstruction(torch.zeros(1)), 8)
    assert float(found["perplexity"]) == pytest.approx(2.0)  # two codes, equally often
    assert float(found["usage"]) == pytest.approx(0.25)


def test_a_model_that_is_no_tokenizer() -> None:
    with pytest.raises(ValueError, match="not Linear"):
        VisionTokenizerLoss(L2Distance()).check(nn.Linear(1, 1))


#: torchvision's AlexNet: layer number, shape, stride and padding of its convolutions; 2 and 5 are followed by pooling.
ALEX = {0: ((64, 3, 11, 11), 4, 2), 3: ((192, 64, 5, 5), 1, 2), 6: ((384, 192, 3, 3), 1, 1),
        8: ((256, 384, 3, 3), 1, 1), 10: ((256, 256, 3, 3), 1, 1)}  # fmt: skip


def by_hand(state: dict[str, Tensor], made: Tensor, given: Tensor, tops: list[Tensor]) -> Tensor:
    """LPIPS by its definition: weighted squared differences of unit features, mean over places, sum over layers."""
    total = torch.zeros(len(made))
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    sides = [(side - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for side in (made, given)]
    for top, (number, (_, stride, padding)) in zip(tops, ALEX.items(), strict=True):
        weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        sides = [F.relu(F.conv2d(side, weight, bias, stride, padding)) for side in sides]
        first, second = (side / (side.square().sum(1, keepdim=True).sqrt() + 1e-10) for side in sides)
        total += F.conv2d((first - second) ** 2, top).mean((1, 2, 3))
        if number in (0, 3):
            sides = [F.max_pool2d(side, 3, 2) for side in sides]
    return total.mean()


def test_lpips_reads_torchvision(tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    torch.manual_seed(0)
    state = {f"features.{n}.weight": 0.1 * torch.randn(shape) for n, (shape, _, _) in ALEX.items()}
    state |= {f"features.{n}.bias": torch.randn(shape[0]) for n, (shape, _, _) in ALEX.items()}
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, tmp_path / "weights.pth")
    distance = LpipsDistance(str(tmp_path / "weights.pth"), "alex")
    given, made = torch.rand(2, 3, 64, 64) * 2 - 1, (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    tops = [layer.model[-1].weight for layer in distance.beside.lins]
    assert_close(distance(made, given), by_hand(state, made, given, tops), atol=1e-5, rtol=1e-4)
    assert_close(distance(made[None], given[None]), distance(made, given))  # the frames of a clip
    assert float(distance(given, given)) == 0
    distance(made, given).backward()
    assert made.grad is not None
    assert not list(distance.parameters())
    assert not distance.state_dict()
    assert distance.double()(made.detach().double(), given.double()).dtype == torch.float64


def test_lpips_without_weights(tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    with pytest.raises(ValueError, match="weights is None and random is False"):
        LpipsDistance(None)
    with pytest.raises(ValueError, match="network is 'squeeze'"):
        LpipsDistance(None, "squeeze", random=True)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        LpipsDistance(str(tmp_path / "absent.pth"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no weights of torchvision's alex"):
        LpipsDistance(str(tmp_path / "other.pth"), "alex")


@pytest.mark.parametrize(
    ("discriminator", "shape", "scores"),
    [
        (PatchDiscriminator(32, 2), (2, 3, 32, 24), (2, 1, 6, 4)),
        (PatchDiscriminator(32, 2), (2, 4, 3, 32, 24), (8, 1, 6, 4)),
        (ClipDiscriminator(32, 2), (2, 8, 3, 32, 32), (2, 1, 2, 6, 6)),
        (MixedDiscriminator(PatchDiscriminator(32, 1), ClipDiscriminator(32, 1)), (1, 3, 16, 16), (1, 1, 6, 6)),
        (MixedDiscriminator(PatchDiscriminator(32, 1), ClipDiscriminator(32, 1)), (1, 4, 3, 16, 16), (1, 1, 1, 6, 6)),
    ],
)
def test_scores_of_patches(discriminator: nn.Module, shape: tuple[int, ...], scores: tuple[int, ...]) -> None:
    pixels = torch.randn(shape)
    found = discriminator(pixels)
    assert found.shape == scores
    if shape[0] == 2:  # pictures do not see each other
        alone = torch.cat([discriminator(one[None]) for one in pixels])
        assert_close(found, alone, atol=1e-5, rtol=1e-4)


def test_discriminators_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="width is 40"):
        PatchDiscriminator(40)
    with pytest.raises(ValueError, match=r"takes clips, not \(1, 3, 16, 16\)"):
        ClipDiscriminator(32)(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="start is -1"):
        Adversarial(PatchDiscriminator(32), start=-1)


class Sum(nn.Module):
    """Scores pictures by their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.scale * pixels.flatten(1).sum(1)


def test_hinge_losses() -> None:
    part = Adversarial(Sum())
    given, made = torch.tensor([[3.0], [0.5]]), torch.tensor([[-3.0], [-0.25]], requires_grad=True)
    found = part(made, given)
    assert float(found["discriminator"]) == pytest.approx((0.5 / 2 + 0.75 / 2) / 2)
    assert float(found["score_given"]) == pytest.approx(1.75)
    assert float(found["score_made"]) == pytest.approx(-1.625)
    assert float(part.score(made)) == pytest.approx(1.625)
    found["discriminator"].backward()
    assert made.grad is None


def test_the_adaptive_weight_evens_out_the_gradients() -> None:
    layer = nn.Parameter(torch.tensor([3.0, 4.0]))
    part = Adversarial(Sum(), weight=0.5, largest=1e4)
    distance, score = (10 * layer).sum(), (2 * layer).sum()
    weight = part.adaptive_weight(distance, score, layer)
    assert float(weight) == pytest.approx(0.5 * 5.0, rel=1e-5)
    assert not weight.requires_grad
    (distance + weight * score).backward()  # the graph is still there
    limited = Adversarial(Sum(), largest=2.0)
    assert float(limited.adaptive_weight((10 * layer).sum(), (2 * layer).sum(), layer)) == pytest.approx(2.0)
    nothing = part.adaptive_weight((10 * layer).sum(), (0 * layer).sum(), layer)
    assert float(nothing) == pytest.approx(0.5 * 1e4)


def test_every_part_is_registered() -> None:
    from multimodal_zoo.registry import build

    node: dict[str, Any] = {
        "type": "vision_tokenizer_loss",
        "pixels": {"type": "l1_distance"},
        "adversarial": {
            "type": "adversarial",
            "discriminator": {
                "type": "mixed_discriminator",
                "pictures": {"type": "patch_discriminator", "width": 32},
                "clips": {"type": "clip_discriminator", "width": 32},
            },
        },
    }
    assert isinstance(build(node).adversarial.discriminator, MixedDiscriminator)
