"""Memory of a training step of Emu3 against its context length, packed documents up to 131,072 tokens.

    python benchmarks/emu3_context.py            # one thread: a few minutes

A small decoder (two layers, 64 wide, 32,768 visual ids as published) on rows of packed documents of at most
16,384 tokens, blocks recomputed around their attention. Memory is the most that a process of its own holds during a
step, above weights and gradients, under MALLOC_MMAP_THRESHOLD_=1048576 (see emu3_loss.py). The mask alone of an
attention over the whole row would take tokens * tokens bytes; there is nothing to compare with, so the table shows that
memory grows no faster than the tokens. With dropout a CPU computes attention in blocks of queries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from _report import _status, record, seconds, use_threads

LENGTHS = ((8192, 0.0), (32768, 0.0), (131072, 0.0), (32768, 0.1))
DOCUMENT = 16384
HELD = 2**21


def step(tokens: int, dropout: float) -> dict[str, float]:
    """Peak memory, seconds and loss of a step in this process."""
    from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
    from multimodal_zoo.decoders.emu3 import Emu3
    from multimodal_zoo.objectives.batch import TokenBatch
    from multimodal_zoo.objectives.next_token import NextToken
    from multimodal_zoo.registry import build
    from multimodal_zoo.tokenizers.emu3_ids import numbered_ids

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 176, "num_attention_heads": 2}
    rest = {"num_key_value_heads": 1, "vocab_size": 33235, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5}
    tokens_of_use = {"pad_token_id": 256, "bos_token_id": 462, "eos_token_id": 463, "hidden_act": "silu"}
    node = node_from_hf(
        {"model_type": "Emu3", **sizes, **rest, **tokens_of_use, "rope_theta": 1e6, "attention_dropout": dropout}
    )
    node["blocks"]["checkpoint"] = "around_attention"
    torch.manual_seed(0)
    model = Emu3(build(node, path="model"), numbered_ids(256, 32768)).train()
    objective = NextToken(held_logits=HELD)

    def loss(count: int) -> torch.Tensor:
        ids, places = torch.randint(467, 33235, (1, count)), torch.arange(count)[None]
        positions = places % DOCUMENT
        batch = TokenBatch(ids, (positions > 0).float(), places // DOCUMENT, positions, ["row"])
        return objective(model, batch)["loss"]

    loss(16).backward()  # loads what torch loads when it is first used
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = seconds()
    value = loss(tokens)
    value.backward()
    return {"MiB": (_status("VmHWM") - before) / 1024, "seconds": seconds() - start, "loss": value.item()}


def measure(tokens: int, dropout: float, threads: int) -> dict[str, float]:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(threads), "--step", str(tokens), str(dropout)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two short rows; records nothing")
    parser.add_argument("--step", nargs=2, metavar=("TOKENS", "DROPOUT"), help="measure once (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.step:
        print(json.dumps(step(int(options.step[0]), float(options.step[1]))))
        return
    rows = []
    for tokens, dropout in ((1024, 0.0), (2048, 0.1)) if options.quick else LENGTHS:
        found = measure(tokens, dropout, options.threads)
        assert found["loss"] == found["loss"], "the loss is no number"
        rows.append(
            {
                "tokens": tokens,
                "dropout": dropout,
                "MiB": found["MiB"],
                "KiB a token": found["MiB"] * 1024 / tokens,
                "a dense mask's MiB": tokens**2 / 2**20,
                "seconds": found["seconds"],
            }
        )
    record("emu3_context", rows, "python benchmarks/emu3_context.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
