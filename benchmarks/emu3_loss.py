"""Training loss of Emu3 at 2,048 tokens against transformers' Emu3ForCausalLM: memory, time, same loss and gradients.

    python benchmarks/emu3_loss.py            # one thread: about ten minutes

Six layers, 512 wide, vocabulary 184,622, one sample of 2,048 random tokens that all count, random weights, no dropout.
Ours is the model and objective that `mmzoo train emu3/...` trains, blocks recomputed in the backward pass but for their
attention (`blocks.checkpoint=around_attention`).

Memory is the most that a process of its own holds during a step, above what it holds when the weights and a gradient
for each exist. "accumulating": the step adds to these gradients, as later batches of `trainer.accumulate_grad_batches`
do; "first": they are let go before, as Lightning does, and the step makes its own. Until it does, half of the logits
wait in that room for the backward pass (`objective.kept_logits`). All logits alone would take
2048 * 184622 * 4 bytes = 1,442 MiB. Both sides run with MALLOC_MMAP_THRESHOLD_=1048576, which makes glibc hand back
what is freed: what a process holds is then what its tensors take. Without it both hold more, ours about 110 MiB. Each
figure has a process of its own; the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _report import _status, ratio, record, seconds, use_threads
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SIDES = ("ours", "transformers")
CONFIG = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "intermediate_size": 1792,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 184622,
    "max_position_embeddings": 9216,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "pad_token_id": 151643,
    "bos_token_id": 151849,
    "eos_token_id": 151850,
}
TOLERANCE = 1e-5
WARM_UP = 16  # tokens
HELD = 2**21  # logits, 8 MiB
KEPT = 2 * 184622 * 512  # logits, in a "first" step: as many numbers as the gradients have that are not there yet


def theirs() -> nn.Module:
    """Transformers' class with random weights."""
    from transformers import Emu3ForCausalLM, Emu3TextConfig

    torch.manual_seed(0)
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": CONFIG["rope_theta"]}}
    kept = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    return Emu3ForCausalLM(Emu3TextConfig(**kept, **rope, use_cache=False)).train()


def ours() -> nn.Module:
    """Our decoder, without weights of its own."""
    from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
    from multimodal_zoo.decoders.emu3 import Emu3
    from multimodal_zoo.registry import build
    from multimodal_zoo.tokenizers.emu3_ids import numbered_ids

    node = node_from_hf({"model_type": "Emu3", **CONFIG})
    node["blocks"]["checkpoint"] = "around_attention"
    return Emu3(build(node, path="model"), numbered_ids(151643, 32768)).train()


def prepare(side: str, folder: Path) -> tuple[nn.Module, Callable[[int], Tensor]]:
    """A side's model with the common weights, and its loss on the first so many tokens."""
    whole = load_file(folder / "ids.safetensors")["ids"]
    state = load_file(folder / "weights.safetensors")
    if side == "transformers":
        model = theirs()
        model.load_state_dict(state)
        return model, lambda tokens: model(input_ids=whole[:, :tokens], labels=whole[:, :tokens]).loss
    from multimodal_zoo.checkpoints.load import load_into
    from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
    from multimodal_zoo.objectives.batch import TokenBatch
    from multimodal_zoo.objectives.next_token import NextToken

    model, objective = ours(), NextToken(held_logits=HELD, kept_logits=KEPT)
    load_into(model.decoder, state, LLAMA)

    def loss(tokens: int) -> Tensor:
        ids = whole[:, :tokens]
        positions = torch.arange(ids.shape[1])[None]
        batch = TokenBatch(ids, (positions > 0).float(), torch.zeros_like(ids), positions, ["sample"])
        return objective(model, batch)["loss"]

    return model, loss


def step(side: str, folder: Path, accumulating: bool, keep: bool) -> dict[str, float]:
    """Peak memory, seconds and loss of one step in this process; `keep` writes the gradients down."""
    model, loss = prepare(side, folder)
    loss(WARM_UP).backward()  # loads what torch loads when it is first used
    for parameter in model.parameters():  # weights that are mapped from a file, and zeros, need not be there yet
        parameter.data = parameter.data.clone()
        parameter.grad = torch.zeros_like(parameter).add_(0)
    before = _status("VmRSS")
    if not accumulating:
        model.zero_grad()
    Path("/proc/self/clear_refs").write_text("5")
    start = seconds()
    value = loss(sys.maxsize)
    value.backward()
    spent, peak = seconds() - start, _status("VmHWM") - before
    if keep:
        save_file(gradients(side, model), folder / f"{side}.safetensors")
    return {"MiB": peak / 1024, "seconds": spent, "loss": value.item()}


def gradients(side: str, model: nn.Module) -> dict[str, Tensor]:
    """Gradients in transformers' names."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if side == "transformers":
        return found
    from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA

    return LLAMA.save({name.removeprefix("decoder."): grad for name, grad in found.items()})


def difference(folder: Path) -> float:
    """Largest difference of a gradient, relative to the largest entry of that gradient."""
    mine, other = (load_file(folder / f"{side}.safetensors") for side in SIDES)
    assert mine.keys() == other.keys()
    return max(float((mine[name] - other[name]).abs().max() / other[name].abs().max()) for name in mine)


def measure(folder: Path, side: str, options: argparse.Namespace, *words: str) -> dict[str, Any]:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--side", side, str(folder), *words]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    print(side, *words, found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="256 tokens, one round; records nothing")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help="measure once (used by itself)")
    parser.add_argument("--accumulating", action="store_true", help="with --side: add to gradients that exist")
    parser.add_argument("--keep", action="store_true", help="with --side: write the gradients down")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.side:
        print(json.dumps(step(options.side[0], Path(options.side[1]), options.accumulating, options.keep)))
        return
    if options.quick:
        options.tokens, options.rounds = 256, 1
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_file(theirs().state_dict(), folder / "weights.safetensors")
        save_file({"ids": torch.randint(0, 151643, (1, options.tokens))}, folder / "ids.safetensors")
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(options.rounds):
            for side in SIDES:
                runs[side].append(measure(folder, side, options, *(["--keep"] if number == 0 else [])))
        added = {side: measure(folder, side, options, "--accumulating") for side in SIDES}
        gap = difference(folder)
    losses = [runs[side][0]["loss"] for side in SIDES]
    assert gap < TOLERANCE, f"gradients differ by {gap}"
    assert abs(losses[0] - losses[1]) < TOLERANCE, f"losses {losses}"
    logits = options.tokens * CONFIG["vocab_size"] * 4 / 2**20
    spent = {side: [run["seconds"] for run in runs[side]] for side in SIDES}
    rows = [
        {
            "side": side,
            "tokens": options.tokens,
            "first MiB": max(run["MiB"] for run in runs[side]),
            "accumulating MiB": added[side]["MiB"],
            "share of the logits": max(added[side]["MiB"], *(run["MiB"] for run in runs[side])) / logits,
            "seconds": statistics.median(spent[side]),
            "transformers' seconds / these": ratio(spent["transformers"], spent[side]),
            "loss difference": abs(runs[side][0]["loss"] - losses[1]),
            "gradient difference": gap if side == "ours" else 0.0,
        }
        for side in SIDES
    ]
    record("emu3_loss", rows, "python benchmarks/emu3_loss.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
