"""What one block keeps of one image for the backward pass, in float32, against explicit attention with everything kept.

The reference's figures (MB per block and image) were measured on its own code with attention written out. Ours are
counted on real forward passes of single blocks of full size; torch's hooks report each tensor that autograd keeps, and
parameters and rotary tables, which all blocks share, do not count.
"""

from __future__ import annotations

import argparse

from _report import record, use_threads

#: MB per block and image of the reference, attention written out.
REFERENCE = {"eva_clip_b16": 14.7, "eva_clip_l14": 26.5, "eva_clip_l14_336": 70.7}
VARIANTS = (*REFERENCE, "eva_clip_g14", "eva_clip_e14", "eva_clip_8b", "eva_clip_18b")


def kept(variant: str) -> tuple[float, float]:
    """MB that a block keeps of one image: of ours, and of the same block with every intermediate result kept."""
    import torch

    from multimodal_zoo.nn import mlp, norms
    from multimodal_zoo.zoo import create

    depth = ["model.image.blocks.depth=1", "model.text.blocks.depth=1", "model.text.vocab_size=514"]
    tower = create(variant, overrides=depth).image.train()
    block = tower.blocks.layers[0]
    side = tower.image_size // tower.patches.patch_size
    rotation = None if tower.rotary is None else tower.rotary((side, side), 1, torch.device("cpu"))
    tokens = torch.randn(1, 1 + side * side, tower.width, requires_grad=True)
    owned = {p.untyped_storage().data_ptr() for p in block.parameters()}
    owned |= {t.untyped_storage().data_ptr() for t in rotation or () if isinstance(t, torch.Tensor)}

    def run() -> float:
        storages: dict[int, int] = {}

        def keep(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = block(tokens, rotation=rotation)
        del result
        return sum(size for place, size in storages.items() if place not in owned) / 1e6

    ours = run()
    recompute = mlp.recompute
    try:
        mlp.recompute = norms.recompute = lambda run, *inputs: run(*inputs)
        return ours, run()
    finally:
        mlp.recompute = norms.recompute = recompute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="*", default=VARIANTS)
    options = parser.parse_args()
    use_threads(1)
    rows = []
    for variant in options.variants:
        ours, everything = kept(variant)
        row = {
            "variant": variant,
            "ours MB": ours,
            "without recomputing MB": everything,
            "ours / that": ours / everything,
        }
        if variant in REFERENCE:
            row |= {"reference MB": REFERENCE[variant], "ours / reference": ours / REFERENCE[variant]}
        rows.append(row)
    record("eva_activations", rows, "python benchmarks/eva_activations.py")


if __name__ == "__main__":
    main()
