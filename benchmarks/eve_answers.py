"""Eight answers about pictures of unequal sizes: one batch against one at a time, as published, with the same weights.

    python benchmarks/eve_answers.py

The decoder is LLaMA's with its vocabulary of 32,000 at a small size: 8 layers, width 512, MLP 1,408, 8 heads, random
weights, float32; EVE v1's embedding layer reads pictures of up to 600 tokens. The published code of both versions
cannot answer several questions at once, or answers them wrongly (its padding is on the right); its loop is
transformers' `generate`, which is measured here behind our embeddings. Answers have 128 tokens, the published limit of
short ones, each the likeliest.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from _report import alternate, ratio, record, use_threads

from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.nn.patch_cells import cut, joined
from multimodal_zoo.registry import build

SIZES = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
QUICK = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
#: Cells of each question's picture, rows and columns: published sizes of 640 x 480, of squares, of panoramas.
GRIDS = ((18, 24), (24, 24), (24, 13), (24, 16), (9, 24), (24, 18), (14, 24), (24, 24))
PATCH, WINDOW, PAD, STEPS = 14, 2, 0, 128


class Rivals:
    """The same questions in three ways.

    Args:
        sizes: of the decoder.
        grids: of the pictures.
        steps: tokens of an answer.
    """

    def __init__(self, sizes: dict[str, int], grids: tuple[tuple[int, int], ...], steps: int) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(**sizes, num_key_value_heads=sizes["num_attention_heads"], rms_norm_eps=1e-5)
        decoder = build(node_from_hf(config.to_dict()), path="decoder")
        embedding = {"type": "eve_patch_embedding", "width": decoder.width, "hidden": 64, "patch": PATCH}
        self.model = Eve(decoder, build({**embedding, "window": WINDOW})).eval()
        self.theirs = LlamaForCausalLM(config)
        self.theirs.load_state_dict(LLAMA.save(decoder.state_dict()), assign=True)
        self.theirs.eval()
        self.steps = steps
        side = PATCH * WINDOW
        cells = [cut(torch.randn(3, rows * side, columns * side), PATCH, WINDOW) for rows, columns in grids]
        text = torch.arange(1000, 1040)
        rows = [torch.cat([text[:20], torch.full((one.tokens[0],), PAD), text[20:]]) for one in cells]
        vision = [torch.zeros(len(row), dtype=torch.bool) for row in rows]
        for places, one in zip(vision, cells, strict=True):
            places[20 : 20 + one.tokens[0]] = True
        self.cells, self.rows, self.vision = cells, rows, vision

    def prompts(self, part: slice) -> PromptBatch:
        """Some of the questions, embedded."""
        return self.model.prompts(self.rows[part], self.vision[part], joined(self.cells[part]), PAD)

    def batch(self) -> torch.Tensor:
        """All at once."""
        return self._ours(slice(None))

    def single(self) -> torch.Tensor:
        """One after the other, by our loop."""
        return torch.cat([self._ours(slice(n, n + 1)) for n in range(len(self.rows))])

    def transformers(self) -> torch.Tensor:
        """One after the other, by transformers' `generate`."""
        found = []
        with torch.no_grad():
            for number in range(len(self.rows)):
                inputs: Any = self.prompts(slice(number, number + 1)).inputs
                options = {"max_new_tokens": self.steps, "min_new_tokens": self.steps, "do_sample": False}
                mask = torch.ones(inputs.shape[:2], dtype=torch.long)
                found.append(
                    self.theirs.generate(inputs_embeds=inputs, attention_mask=mask, pad_token_id=PAD, **options)
                )
        return torch.cat(found)

    def _ours(self, part: slice) -> torch.Tensor:
        policy = FreeText(self.steps, end=None, pad=PAD)
        return self.model.generate(self.prompts(part), policy, sampling=Sampling(greedy=True)).ids


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    rivals = Rivals(QUICK, ((2, 3), (1, 4), (3, 2)), 4) if options.quick else Rivals(SIZES, GRIDS, STEPS)
    batch, single, theirs = rivals.batch(), rivals.single(), rivals.transformers()
    same = {"one batch": batch, "one at a time": single, "transformers, one at a time": theirs}
    ways = {
        "one batch": rivals.batch,
        "one at a time": rivals.single,
        "transformers, one at a time": rivals.transformers,
    }
    times = alternate(ways, options.repeats, 0)
    tokens = theirs.numel()
    slowest = times["transformers, one at a time"]
    rows = [
        {
            "way": way,
            "answers": len(rivals.rows),
            "prompt tokens": sum(map(len, rivals.rows)),
            "s": min(taken),
            "answer tokens/s": tokens / min(taken),
            "times faster": ratio(slowest, taken),
            "same ids": str(torch.equal(same[way], theirs)),
        }
        for way, taken in times.items()
    ]
    record("eve_answers", rows, "python benchmarks/eve_answers.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
