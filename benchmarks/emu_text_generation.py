"""Texts behind prompts of words and visual embeddings: our loop against transformers' `generate` with the same weights.

    python benchmarks/emu_text_generation.py

Two decoders of LLaMA's kind with random weights, float32: that of `emu_tiny` (width 128, 4 layers, a vocabulary of
1,033), where a step is mostly the calls of its layers; and a small one with Emu's vocabulary (width 512, 8 layers, MLP
1,408, 32,004 words), where it is mostly reading the weights, as it is for Emu. Four prompts of a picture (8 visual
embeddings) and words of unequal number, embedded by the model for both sides (`inputs_embeds`); 32 tokens each, the
likeliest ones, or by five beams, whose scores count generated tokens only, as transformers counts since its version
4.38.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from _report import alternate, ratio, record, use_threads
from torch import Tensor

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
from multimodal_zoo.generation.beams import Beams, beam_search
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.sampling import Sampling

STEPS, PAD, PROMPTS = 32, 0, 4
QKV = "model.decoder.blocks.block.attention.qkv"
SIZES = {
    "emu_tiny": [],
    "width 512, 8 layers": [
        *("model.decoder.width=512", "model.connector.width=512", "model.decoder.vocab_size=32004"),
        *("model.decoder.blocks.depth=8", "model.decoder.blocks.block.mlp.hidden=1408"),
        *(f"{QKV}.heads=8", f"{QKV}.kv_heads=8", f"{QKV}.head_dim=64"),
    ],
}


class Rivals:
    """The same prompts by both loops.

    Args:
        size: a name of `SIZES`.
        steps: tokens of a text.
    """

    def __init__(self, size: str, steps: int) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        self.model: Any = zoo.create("emu_tiny", overrides=SIZES[size]).eval()
        decoder = self.model.decoder
        with torch.no_grad():
            decoder.output.weight.mul_(10)  # scores far enough apart that rounding does not choose
        weights, qkv = LLAMA.save(decoder.state_dict()), decoder.blocks.layers[0].attention.qkv
        config = LlamaConfig(
            hidden_size=decoder.width,
            intermediate_size=len(weights["model.layers.0.mlp.gate_proj.weight"]),
            num_hidden_layers=len(decoder.blocks.layers),
            num_attention_heads=qkv.heads,
            num_key_value_heads=qkv.kv_heads,
            vocab_size=decoder.vocab_size,
            rms_norm_eps=1e-5,
            bos_token_id=1,
            eos_token_id=None,
        )
        self.theirs = LlamaForCausalLM(config)
        self.theirs.load_state_dict(weights, assign=True)
        self.theirs.eval()
        self.steps, self.prompts = steps, self._prompts()

    def _prompts(self) -> PromptBatch:
        places, rows, vision = 8, [], []
        for number in range(PROMPTS):
            words = torch.randint(3, 1000, (6 + 3 * number,))
            shown = torch.zeros(places, dtype=torch.long)
            rows.append(torch.cat([words[:2], shown, words[2:]]))
            vision.append(torch.zeros(len(rows[-1]), dtype=torch.bool))
            vision[-1][2 : 2 + places] = True
        visual = torch.randn(PROMPTS * places, self.model.visual_width) * 0.02
        return self.model.prompts(rows, vision, visual, PAD)

    def alone(self) -> list[PromptBatch]:
        """Each prompt as a batch of its own."""
        rows = zip(self.prompts.inputs, self.prompts.real, strict=True)
        return [PromptBatch(row[real][None], real[real][None]) for row, real in rows]

    def ours(self, prompts: PromptBatch, beams: int) -> Tensor:
        """By our loop."""
        if beams > 1:
            policy = FreeText(self.steps, end=-1, pad=PAD)  # no id ends a text
            return beam_search(self.model.decoder, prompts, policy, Beams(beams, counts_start=False)).ids
        policy = FreeText(self.steps, end=None, pad=PAD)
        return self.model.generate(prompts, policy, sampling=Sampling(greedy=True)).ids

    @torch.no_grad()
    def transformers(self, prompts: PromptBatch, beams: int) -> Tensor:
        """By transformers' `generate`."""
        options: dict[str, Any] = {"max_new_tokens": self.steps, "do_sample": False, "num_beams": beams}
        if beams > 1:
            options["length_penalty"] = 0.0
        found: Tensor = self.theirs.generate(  # type: ignore[assignment]
            inputs_embeds=prompts.inputs, attention_mask=prompts.real.long(), pad_token_id=PAD, **options
        )
        return found


def compared(rivals: Rivals, name: str, batches: list[PromptBatch], beams: int, repeats: int) -> list[dict[str, Any]]:
    """Both loops over the same prompts."""
    found: dict[str, Tensor] = {}
    loops = {"ours": rivals.ours, "transformers": rivals.transformers}

    def run(loop: str) -> None:
        """All prompts by a loop."""
        found[loop] = torch.cat([loops[loop](one, beams) for one in batches])

    times = alternate({loop: partial(run, loop) for loop in loops}, repeats)
    return [
        {
            "way": name,
            "loop": loop,
            "texts": PROMPTS,
            "s": min(taken),
            "tokens/s": found[loop].numel() / min(taken),
            "times faster": ratio(times["transformers"], taken),
            "same ids": str(torch.equal(found["ours"], found["transformers"])),
        }
        for loop, taken in times.items()
    ]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few tokens; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    rows = list[dict[str, Any]]()
    for size in SIZES:
        rivals = Rivals(size, 4 if options.quick else STEPS)
        cases = {
            "greedy, one at a time": (rivals.alone(), 1),
            "greedy, one batch": ([rivals.prompts], 1),
            "5 beams, one batch": ([rivals.prompts], 5),
        }
        for name, (batches, beams) in cases.items():
            rows += [{"decoder": size, **row} for row in compared(rivals, name, batches, beams, options.repeats)]
    record("emu_text_generation", rows, "python benchmarks/emu_text_generation.py", options.threads, not options.quick)


if __name__ == "__main__":
    main()
