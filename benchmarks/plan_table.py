"""What every published variant costs: parameters, memory for inference, memory of each of 1, 8 and 64 GPUs in training.

    python benchmarks/plan_table.py                      # nothing is allocated; a few minutes
    python benchmarks/plan_table.py clip_vit_b32         # some rows only, printed and not kept

Each row is `mmzoo plan RECIPE as_trained=true devices=N` for the recipe that trains the variant: batch of a process,
length, precision, recomputation and optimiser are the recipe's, and so is the strategy from eight GPUs on. The page
docs/plans.md is written from the rows.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _report import RESULTS, record
from torch import Tensor, nn

from multimodal_zoo.analysis import Setting, sample_of
from multimodal_zoo.analysis.decoder_plan import as_trained
from multimodal_zoo.analysis.formats import inference_bytes
from multimodal_zoo.analysis.memory import activation_bytes, training_bytes
from multimodal_zoo.commands.plan import declared
from multimodal_zoo.commands.plan import main as plan
from multimodal_zoo.nn.frozen import freeze
from multimodal_zoo.zoo import build_model

NAME = "plan_table"
PAGE = Path(__file__).parents[1] / "docs" / "plans.md"
BEGIN, END = "<!-- the table: written by benchmarks/plan_table.py -->", "<!-- the end of the table -->"
DEVICES = (1, 8, 64)
#: Variant -> the recipe that trains it, and words that put the variant into the recipe of its nearest relation.
RECIPES: dict[str, tuple[str, ...]] = {
    **{f"clip_{size}": (f"clip/{size}",) for size in ("vit_b32", "vit_b16", "vit_l14")},
    "clip_vit_l14_336": ("clip/vit_l14", "model=clip_vit_l14_336"),
    **{
        f"{method}_{tower}_yfcc": (f"clip_benchmark/{method}_{tower}",)
        for method in ("clip", "slip", "filip", "declip", "defilip")
        for tower in ("vit_b32", "r50")
    },
    "declip_88m_r50": ("declip/88m_r50",),
    "declip_88m_vit_b32": ("declip/88m_vit_b32",),
    "declip_88m_regnety_64gf": ("declip/88m_r50", "model=declip_88m_regnety_64gf", "optim.groups.frozen=[]"),
    **{
        f"eva_clip_{size}": (f"eva_clip/{size}",)
        for size in ("b16", "l14", "l14_336", "g14", "g14_plus", "e14", "e14_plus", "8b", "8b_448", "18b")
    },
    **{f"eva_mim_{size}": (f"eva_clip/mim_{size}",) for size in ("b14", "l14", "8b", "18b")},
    "emu_14b": ("emu/pretrain",),
    "emu_instruct": ("emu/instruct",),
    "emu2": ("emu/emu2_stage2",),
    "emu2_chat": ("emu/emu2_chat",),
    "emu2_gen": ("emu/emu2_gen", "model=emu2_gen", "optim.groups.frozen=[image_encoder.*,visual_decoder.*]"),
    "emu3_stage1": ("emu3/stage1",),
    "emu3_gen": ("emu3/sft_generation",),
    "emu3_chat": ("emu3/sft_chat",),
    "emu3_vision_tokenizer": ("emu3/tokenizer",),
    "eve_7b_pretrain": ("eve/pretrain", "model=eve_7b_pretrain"),
    "eve_7b": ("eve/sft",),
    "eve_7b_hd": ("eve/sft_hd",),
    "eve_v2_7b_hd": ("eve/v2_stage3",),
    "capsfus_llama_13b": ("capsfusion/distill",),
    "smollm2_135m": ("capsfusion/distill", "model=smollm2_135m"),
    **{f"fast_bev_{size}": (f"fast_bev/{size}",) for size in ("m0", "m1", "m2", "m3", "m4", "m5", "r50", "r101")},
}


def planned(words: Sequence[str], devices: int) -> dict[str, Any]:
    """What the command says, in plain numbers."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        plan([*words, "as_trained=true", f"devices={devices}", "json=true"])
    return json.loads(said.getvalue())


class Step(NamedTuple):
    """What a training step runs: the model as it trains, its inputs, and the length of a decoder's sequences."""

    model: nn.Module
    runs: nn.Module
    inputs: Callable[[int], tuple[Tensor, ...]]
    length: int = 0


def step_of(config: Mapping[str, Any], rules: Mapping[str, Any], options: Mapping[str, str]) -> Step:
    """The step that the command plans, without its operations, which take most of its time."""
    model = build_model(config, device="meta")
    freeze(dict(model.named_parameters()), **rules)
    if positions := (config.get("decoder") or {}).get("max_positions"):
        length, copy = int(options.get("context_length", positions)), as_trained(model)
        return Step(copy, copy, lambda batch: (torch.zeros(batch, length, dtype=torch.long),), length)
    if sample := sample_of(model, config, int(options.get("image_size", 256))):
        return Step(model, sample.runs, sample.inputs)
    side, tokens = int(config["image"]["image_size"]), int(config["text"]["context_length"])

    def pairs(batch: int) -> tuple[Tensor, ...]:
        return torch.empty(batch, 3, side, side), torch.zeros(batch, tokens, dtype=torch.long)

    return Step(model, model, pairs)


def setting_of(options: Mapping[str, str]) -> Setting:
    """The setting that the command takes from such options."""
    names = {field.name: field.type for field in fields(Setting)}
    given = {key: value for key, value in options.items() if key in names}
    return Setting(**{key: int(value) if names[key] == "int" else value for key, value in given.items()})  # type: ignore


def row(variant: str) -> dict[str, str | float | int]:
    """A row of the table; gigabytes are 10^9 bytes."""
    name, *words = RECIPES[variant]
    totals, found, kept = {}, None, {}
    for devices in DEVICES:
        config, rules, options = declared(name, words, {"as_trained": "true", "devices": str(devices)})
        setting = setting_of(options)
        found = found or step_of(config, rules, options)
        if setting.strategy not in kept:
            kept[setting.strategy] = activation_bytes(found.runs, found.inputs, setting)
        totals[f"{devices} GPU GB"] = training_bytes(found.model, kept[setting.strategy], setting).total / 1e9
    assert found is not None
    qkv = found.model.decoder.blocks.layers[0].attention.qkv if found.length else None
    cache = 4 * found.model.decoder.blocks.depth * qkv.kv_heads * qkv.head_dim * found.length if found.length else 0
    return {
        "variant": variant,
        "recipe": " ".join(RECIPES[variant]),
        "parameters": sum(p.numel() for p in found.model.parameters()),
        "trained": sum(p.numel() for p in found.model.parameters() if p.requires_grad),
        "inference GB": inference_bytes(found.model)["float16 / bfloat16"] / 1e9,
        "cache GB": cache / 1e9,
        "batch": setting.batch_size,
        "tokens": found.length,
        "precision": setting.precision,
        "strategy": setting.strategy,
        **totals,
        "activations GB": kept[setting.strategy] / 1e9,
    }


def amount(value: object) -> str:
    """A cell for people: three digits, millions or billions of parameters."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    if isinstance(value, int):
        return f"{value / 1e9:.2f} B" if value >= 1e9 else f"{value / 1e6:.1f} M"
    return str(value)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the page."""
    head = ["variant", "plan of", "parameters", "trained", "inference", "batch", "strategy", "precision"]
    lines = [[*head, *(f"{devices} GPU{'s' * (devices > 1)}" for devices in DEVICES)]]
    lines.append(["---"] * 2 + ["---:"] * 4 + ["---"] * 2 + ["---:"] * len(DEVICES))
    for one in rows:
        inference = amount(one["inference GB"]) + (f" + {amount(one['cache GB'])}" if one["tokens"] else "")
        batch = f"{one['batch']} x {one['tokens']:,}" if one["tokens"] else f"{one['batch']:,}"
        recipe = " ".join(one["recipe"].split())
        lines.append(
            [
                *(f"`{one['variant']}`", f"`{recipe}`", amount(one["parameters"]), amount(one["trained"]), inference),
                *(batch, one["strategy"], one["precision"]),
                *(amount(one[f"{devices} GPU GB"]) for devices in DEVICES),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(rows: Sequence[Mapping[str, Any]], text: str) -> str:
    """The page with another table."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Plan, keep the rows and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", choices=[[], *RECIPES], default=[])
    parser.add_argument("--page", action="store_true", help="write the page from the rows that are kept")
    arguments = parser.parse_args()
    if arguments.page:
        rows = json.loads((RESULTS / f"{NAME}.json").read_text())["rows"]
    else:
        rows = [row(variant) for variant in arguments.variants or RECIPES]
        record(NAME, rows, f"python benchmarks/{NAME}.py", keep=not arguments.variants)
    if not arguments.variants:
        PAGE.write_text(page(rows, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
