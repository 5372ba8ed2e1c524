from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.checkpoints.meta import meta_device
from multimodal_zoo.zoo import create


def test_a_model_on_meta_has_the_names_shapes_and_types_of_a_real_one() -> None:
    real = create("eva_clip_tiny").state_dict()
    for ghost in (create("eva_clip_tiny", device="meta"), variant_on_meta("eva_clip_tiny")):
        found = ghost.state_dict()
        assert all(tensor.is_meta for tensor in found.values())
        assert {n: (t.shape, t.dtype) for n, t in found.items()} == {n: (t.shape, t.dtype) for n, t in real.items()}


def test_only_tensors_on_meta_are_left_alone() -> None:
    real = torch.zeros(3)
    with meta_device():
        assert nn.Linear(2, 3).weight.is_meta
        real.normal_()
        nn.init.uniform_(real.mul_(2), 1.0, 2.0)
    assert bool((real >= 1).all())


def test_building_and_naming_on_meta_import_neither_compiler_nor_algebra() -> None:
    """Both together take seconds and more than 100 MB, for weights that nobody sees."""
    program = (
        "import sys; from multimodal_zoo.zoo import create; model = create('eva_clip_tiny', device='meta');"
        "from multimodal_zoo.checkpoints.rules import pack; weight = model.image_projection.weight;"
        "assert pack(['q', 'k'], 'qk').to_ours([weight, weight])[0].shape[0] == 2 * weight.shape[0];"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
