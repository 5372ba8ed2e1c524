"""64 visual embeddings behind a prompt: one position a step over a cache, against the published loop.

    python benchmarks/emu_visual_generation.py          # one thread: about a minute of processor time

The decoder is LLaMA's at a small size: 8 layers, width 512, MLP 1,408, 8 heads, random weights, float32. Visual
embeddings are 256 wide, with a projection to the decoder's width and a head back, as in Emu2. The published loop
(baaivision/Emu, EmuModel.generate_image) is written here over transformers' LlamaModel with the same weights: it reads
the whole sequence anew for each embedding, keeps the states of all layers and reads the last one's. What it does
besides, tokenising the text again in every step, is left out.

Prompts have 17, 83 and 149 tokens: words alone, a picture, two pictures, whose embeddings are known to both sides. The
last row has two prompts of each length in one batch with padding; the published pipelines make one picture in a call,
so that they would take the sum of their times, twice.

Each step reads what the step before it gave, and random weights let rounding grow from step to step. "difference of a
step" is the largest one where our loop reads the published embeddings, "difference at the end" that of both loops left
to themselves; both relative to the largest value.

Memory is the most that a process of its own holds during the loop above what it holds before, behind the longest
prompt, with MALLOC_MMAP_THRESHOLD_=65536, which makes glibc hand back what is freed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _report import alternate, peak_mib, ratio, record, seconds, use_threads
from torch import Tensor, nn

from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.generation.loop import Reader
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.registry import build

SIZES = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
QUICK = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISUAL, VOCAB, PAD, OPEN, CLOSE = 256, 4000, 0, 1, 2
WORDS, PICTURES = 16, (0, 1, 2)
TOLERANCE = 3e-4


class NoPictures(nn.Module):
    """Stands in the image encoder's place: the embeddings of pictures are given."""

    width, image_size = VISUAL, 8

    def forward(self, images: Tensor) -> ImageFeatures:
        """Never called."""
        raise AssertionError(f"{len(images)} pictures to encode; none is part of the measurement")


class Loops:
    """The same prompts by both loops.

    Args:
        sizes: of the decoder.
        count: visual embeddings of a picture.
    """

    def __init__(self, sizes: dict[str, int], count: int) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(**sizes, num_key_value_heads=sizes["num_attention_heads"], vocab_size=VOCAB)
        decoder = build(node_from_hf(config.to_dict()), path="decoder")
        connector = build({"type": "pooled_tokens", "width": VISUAL}, path="connector")
        up = {"type": "linear_layer", "in_features": VISUAL, "out_features": decoder.width, "bias": False}
        self.model = Emu(decoder, NoPictures(), connector, build(up, path="input_projection")).eval()
        whole = LlamaForCausalLM(config)
        whole.load_state_dict(LLAMA.save(decoder.state_dict()), assign=True)
        self.theirs, self.count = whole.model.eval(), count
        self.prompts = [self._prompt(pictures) for pictures in PICTURES]

    def _prompt(self, pictures: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids that end with what opens a picture, where embeddings stand, and these."""
        shown = [OPEN, *[PAD] * self.count, CLOSE]
        ids = [*torch.randint(3, VOCAB, (WORDS,)).tolist(), *shown * pictures, OPEN]
        places = [False] * WORDS + [False, *[True] * self.count, False] * pictures + [False]
        return torch.tensor(ids), torch.tensor(places), torch.randn(pictures * self.count, VISUAL)

    def ours(self, chosen: list[int]) -> Tensor:
        """All of them in one batch."""
        return self.model.imagine(self._batch(chosen), self.count)

    def _batch(self, chosen: list[int]) -> PromptBatch:
        ids, places, visual = zip(*(self.prompts[number] for number in chosen), strict=True)
        return self.model.prompts(ids, places, torch.cat(visual), PAD)

    @torch.no_grad()
    def step_difference(self, chosen: list[int], known: Tensor) -> float:
        """Largest difference of a step, relative to the largest value, where ours reads the published embeddings.

        Raises:
            AssertionError: above the tolerance.
        """
        reader = Reader(self.model.decoder, self._batch(chosen), self.count - 1)
        found = [self.model.regression_head(reader.state)]
        for step in range(self.count - 1):
            reader.read(self.model.project(known[:, step])[:, None])
            found.append(self.model.regression_head(reader.state))
        gap = difference(torch.stack(found, 1), known)
        assert gap < TOLERANCE, f"embeddings differ by {gap}"
        return gap

    @torch.no_grad()
    def published(self, chosen: list[int]) -> Tensor:
        """One after the other, every step over the whole sequence, with the states of all layers."""
        return torch.cat([self._published(*self.prompts[number]) for number in chosen])

    def _published(self, ids: Tensor, places: Tensor, visual: Tensor, begun: int = 0) -> Tensor:
        found = [torch.randn(1, VISUAL) for _ in range(begun)]
        for _ in range(self.count - begun):
            behind = torch.full((len(found),), PAD)
            whole, shown = torch.cat([ids, behind]), torch.cat([places, torch.ones_like(behind, dtype=torch.bool)])
            states = self.model.embed(whole[None], shown[None], torch.cat([visual, *found]))
            read = self.theirs(inputs_embeds=states, output_hidden_states=True)
            found.append(self.model.regression_head(read.hidden_states[-1][:, -1]))
        return torch.cat(found)[None]

    @torch.no_grad()
    def memory(self, side: str, number: int) -> float:
        """MiB of a loop: the whole of ours, the last four steps, the longest, of the published one."""
        last = max(self.count - 4, 0)
        ways = {"ours": lambda: self.ours([number]), "published": lambda: self._published(*self.prompts[number], last)}
        return peak_mib(ways[side])


def memory(side: str, options: argparse.Namespace) -> float:
    """MiB of one loop in a process of its own."""
    words = ["--quick"] if options.quick else []
    command = [sys.executable, __file__, "--threads", str(options.threads), *words, "--side", side]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def single(loops: Loops, number: int, known: dict[int, Tensor], repeats: int) -> list[dict[str, Any]]:
    """Both loops behind one prompt; `known` gets the published embeddings."""
    found: dict[str, Tensor] = {}

    def side(name: str, loop: Callable[[list[int]], Tensor]) -> Callable[[], None]:
        """A loop that keeps what it gives."""
        return lambda: found.update({name: loop([number])})

    ways = {"ours": side("ours", loops.ours), "published": side("published", loops.published)}
    times = alternate(ways, repeats, 0)
    known[number] = found["published"]
    gaps = (loops.step_difference([number], known[number]), difference(found["ours"], known[number]))
    return [
        {
            "loop": name,
            "prompts": 1,
            "prompt tokens": len(loops.prompts[number][0]),
            "s": min(taken),
            "times faster": ratio(times["published"], taken),
            "difference of a step": gaps[0] if name == "ours" else 0.0,
            "difference at the end": gaps[1] if name == "ours" else 0.0,
        }
        for name, taken in times.items()
    ]


def batch(loops: Loops, rows: list[dict[str, Any]], known: dict[int, Tensor]) -> dict[str, Any]:
    """Ours with two prompts of each length at once; the published loop would take the sum of its times."""
    chosen = [*range(len(PICTURES))] * 2
    start = seconds()
    found = loops.ours(chosen)
    spent = seconds() - start
    theirs = 2 * sum(row["s"] for row in rows if row["loop"] == "published")
    published = torch.cat([known[number] for number in chosen])
    return {
        "loop": "ours, one batch",
        "prompts": len(chosen),
        "prompt tokens": sum(len(loops.prompts[number][0]) for number in chosen),
        "s": spent,
        "times faster": theirs / spent,
        "difference of a step": loops.step_difference(chosen, published),
        "difference at the end": difference(found, published),
    }


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; records nothing")
    parser.add_argument("--side", choices=("ours", "published"), help="memory of one loop (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    loops = Loops(QUICK, 4) if options.quick else Loops(SIZES, 64)
    longest = len(PICTURES) - 1
    if options.side:
        print(json.dumps(loops.memory(options.side, longest)))
        return
    rows: list[dict[str, Any]] = []
    known: dict[int, Tensor] = {}
    for number in range(len(PICTURES)):
        rows += single(loops, number, known, options.repeats)
        print(rows[-2:], file=sys.stderr, flush=True)
    rows.append(batch(loops, rows, known))
    if Path("/proc/self/clear_refs").exists():
        for row in rows[-3:-1]:
            row["MiB"] = round(memory(row["loop"], options), 1)
    command = "python benchmarks/emu_visual_generation.py"
    record("emu_visual_generation", rows, command, options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
