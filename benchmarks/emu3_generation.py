"""A picture of 16 x 16 tokens drawn by Emu3's decoder against transformers' `generate`, with the same weights.

    python benchmarks/emu3_generation.py             # tokens/s of a picture, ratio
    python benchmarks/emu3_generation.py --contexts  # time of a token against the tokens before it, a figure

The decoder has the published vocabulary of 184,622 and a sixth of the depth: 6 layers, width 512, MLP 1,792, 8 heads
over 2, random weights, float32. Both draw with guidance 3, the grid as a constraint and top-k 2,048, as the published
script does.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from _report import alternate, ratio, record, seconds, use_threads
from omegaconf import OmegaConf

from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
from multimodal_zoo.config import compose
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.generation.loop import Progress, Scoring
from multimodal_zoo.generation.prompts import left_padded
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_ids import numbered_ids

FIGURE = Path(__file__).parents[1] / "docs/figures/emu3_generation.png"
GUIDANCE, TOP_K = 3.0, 2048
IDS = numbered_ids(151643, 32768)
SIZES = {"width": 512, "depth": 6, "heads": 8, "kv_heads": 2, "hidden": 1792}
QUICK = {"width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 64}
CONTEXTS = (64, 256, 1024, 2048, 4096)
#: transformers scores the whole vocabulary at every token of the negative prompt: 3 GB at 4,096.
THEIRS_UP_TO = 1024


def models(sizes: dict[str, int]) -> tuple[Emu3, Any]:
    """Ours and theirs with the same weights."""
    from transformers import Emu3ForCausalLM, Emu3TextConfig

    block = "decoder.blocks.block"
    settings = {
        "decoder.width": sizes["width"],
        "decoder.blocks.depth": sizes["depth"],
        f"{block}.mlp.hidden": sizes["hidden"],
        f"{block}.attention.qkv.heads": sizes["heads"],
        f"{block}.attention.qkv.kv_heads": sizes["kv_heads"],
        f"{block}.attention.qkv.head_dim": sizes["width"] // sizes["heads"],
    }
    words = ["+decoder@decoder=emu3_8b", *(f"{key}={value}" for key, value in settings.items())]
    torch.manual_seed(0)
    decoder = build(OmegaConf.to_container(compose(None, words).decoder, resolve=True), path="decoder")
    config = Emu3TextConfig(
        hidden_size=sizes["width"],
        intermediate_size=sizes["hidden"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"],
    )
    theirs = Emu3ForCausalLM(config)
    theirs.load_state_dict(LLAMA.save(decoder.state_dict()), assign=True)
    return Emu3(decoder, IDS).eval(), theirs.eval()


def prompt(tokens: int, first: int) -> list[int]:
    """A prompt that ends in an image token; the size before it stands for any."""
    words = [first + number % 90 for number in range(tokens - 4)]
    return [IDS.bos, *words, IDS.image_start, 21, IDS.image_token]


class Rivals:
    """Both ways to draw one grid behind one prompt."""

    def __init__(self, ours: Emu3, theirs: Any, grid: tuple[int, int], context: int, negative: int) -> None:
        self.model, self.theirs, self.grid = ours, theirs, grid
        self.rows = [prompt(context, 1000)], [prompt(negative, 2000)]
        self.visual = list(range(IDS.visual.start, IDS.visual.stop))

    def ours(self, greedy: bool = False, tell: Callable[[Progress], None] | None = None) -> torch.Tensor:
        """Ids by our loop."""
        prompts, negative = (left_padded(rows, IDS.pad) for rows in self.rows)
        return self.model.generate(
            prompts,
            self.model.picture_steps(prompts, [self.grid]),
            negative=negative,
            sampling=Sampling(greedy=True) if greedy else Sampling(top_k=TOP_K),
            scoring=Scoring(GUIDANCE),
            on_token=tell,
        ).ids[0]

    def transformers(self, greedy: bool = False, tell: Callable[[], None] | None = None) -> torch.Tensor:
        """Ids by transformers' `generate`, constrained as its documentation does for this model."""
        ids, negative = (torch.tensor(rows) for rows in self.rows)
        rows, columns = self.grid
        length = ids.shape[1]

        def allowed(batch: int, before: torch.Tensor) -> Sequence[int]:
            """The ids that may come."""
            del batch
            if tell is not None:
                tell()
            offset = len(before) - length + 1
            closing = (IDS.end_of_frame, IDS.image_end, IDS.eos)
            if offset > rows * (columns + 1):
                return (closing[offset - rows * (columns + 1) - 1],)
            return (IDS.end_of_line,) if offset % (columns + 1) == 0 else self.visual

        with torch.no_grad():
            return self.theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                negative_prompt_ids=negative,
                negative_prompt_attention_mask=torch.ones_like(negative),
                guidance_scale=GUIDANCE,
                prefix_allowed_tokens_fn=allowed,
                do_sample=not greedy,
                top_k=None if greedy else TOP_K,
                max_new_tokens=rows * (columns + 1) + 3,
            )[0, length:]


def picture(options: argparse.Namespace) -> None:
    """Tokens per second of a whole picture."""
    ours, theirs = models(QUICK if options.quick else SIZES)
    small = Rivals(ours, theirs, (3, 4), 12, 20)
    same = torch.equal(small.ours(greedy=True), small.transformers(greedy=True))
    assert same, "the likeliest pictures differ"
    rows = []
    for grid in [(2, 3)] if options.quick else [(16, 16)]:
        rivals = Rivals(ours, theirs, grid, 40, 60)
        times = alternate({"ours": rivals.ours, "transformers": rivals.transformers}, options.repeats, 1)
        tokens = grid[0] * (grid[1] + 1) + 3
        row: dict[str, str | float] = {"grid": "{} x {}".format(*grid), "tokens": tokens}
        for side, taken in times.items():
            row |= {f"{side} s": min(taken), f"{side} tokens/s": tokens / min(taken)}
        rows.append(row | {"times faster": ratio(times["transformers"], times["ours"]), "same greedy ids": str(same)})
    record("emu3_generation", rows, "python benchmarks/emu3_generation.py", options.threads, keep=not options.quick)


def contexts(options: argparse.Namespace) -> None:
    """Milliseconds of a token behind prompts of several lengths, both branches of guidance alike."""
    ours, theirs = models(QUICK if options.quick else SIZES)
    rows = []
    for context in (16, 32) if options.quick else CONTEXTS:
        rivals = Rivals(ours, theirs, (1, 12), context, context)
        row: dict[str, float] = {"tokens before": context, "ours ms": _each(rivals.ours)}
        if context <= THEIRS_UP_TO:
            row["transformers ms"] = _each(rivals.transformers)
        rows.append(row)
    first, last = rows[0], rows[-1]
    growth = (last["ours ms"] - first["ours ms"]) / (last["tokens before"] - first["tokens before"]) * 1000
    rows[-1]["ms for 1,000 tokens more"] = growth
    command = "python benchmarks/emu3_generation.py --contexts"
    record("emu3_generation_contexts", rows, command, options.threads, keep=not options.quick)
    if not options.quick:
        draw(rows)


def _each(side: Callable[..., object]) -> float:
    """Median milliseconds between two drawn tokens, the prompt and the given ids at the end left out."""
    marks: list[float] = []
    side(tell=lambda *_: marks.append(seconds()))
    return 1000 * statistics.median(later - sooner for sooner, later in pairwise(marks[1:12]))


def draw(rows: Sequence[dict[str, float]]) -> None:
    """Time of a token against the tokens before it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6))
    for key, label, style in (("transformers ms", "transformers", "s--"), ("ours ms", "multimodal_zoo", "o-")):
        points = [(row["tokens before"], row[key]) for row in rows if key in row]
        axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set(xlabel="tokens before, in both branches of guidance", ylabel="ms a token, one CPU thread", ylim=(0, None))
    axes.set_title("Emu3, 6 layers, width 512, vocabulary 184,622")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contexts", action="store_true", help="time of a token against the tokens before it instead")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    contexts(options) if options.contexts else picture(options)


if __name__ == "__main__":
    main()
