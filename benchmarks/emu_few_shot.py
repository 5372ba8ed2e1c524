"""Four examples in front of many questions: encoded and read once, against both anew for each question.

    python benchmarks/emu_few_shot.py

The model is an Emu with random weights, float32: an image encoder of width 192 with 8 layers that reads 112 pixels in
197 tokens, a Causal Former of 32 queries, and a decoder of width 512 with 8 layers. Each of the 16 questions is a
picture of its own behind the same four pictures with their names, answered by 4 tokens, the likeliest ones. The way of
the published code, in which every question is a prompt of its own with five pictures, is compared with `answer` over
one `Remembering(model.decoder)`: one question after the other, and in batches of eight.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _report import alternate, ratio, record, use_threads

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.remembering import Remembering
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.visual_memory import memory_of
from multimodal_zoo.inference.writers import writer_of

SHOTS, QUESTIONS, STEPS, TOGETHER = 4, 16, 4, 8
QKV, VISION = "model.decoder.blocks.block.attention.qkv", "model.image_encoder"
SIZES = ["model.decoder.width=512", "model.decoder.blocks.depth=8", "model.decoder.blocks.block.mlp.hidden=1408"]
SIZES += [f"{QKV}.heads=8", f"{QKV}.kv_heads=8", f"{QKV}.head_dim=64"]
SIZES += [
    f"{VISION}.width=192",
    f"{VISION}.blocks.depth=8",
    f"{VISION}.image_size=112",
    "model.processor.images.size=112",
]
SIZES += [f"{VISION}.blocks.block.attention.qkv.heads=6", f"{VISION}.blocks.block.mlp.hidden=512"]
SIZES += ["model.connector.width=512", "model.connector.queries=32", "model.connector.context_norm.width=192"]
SIZES += ["model.processor.image_tokens=32"]


class Ways:
    """The same questions in three ways.

    Args:
        model: an Emu with its processor.
        questions: how many.
    """

    def __init__(self, model: Any, questions: int) -> None:
        self.model = model
        dice = np.random.default_rng(0)
        pictures = [dice.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(SHOTS + questions)]
        words = ("a red apple, ", "a house on a hill, ", "two cats, ", "an old boat, ")
        shots = [one for number in range(SHOTS) for one in (Image(pictures[number]), Text(words[number]))]
        self.documents = [Document([*shots, Image(one)]) for one in pictures[SHOTS:]]

    def anew(self) -> list[str]:
        """Every question with its five pictures, as a prompt of its own."""
        model, processor, found = self.model, self.model.processor, []
        with torch.no_grad():
            for document in self.documents:
                sample = processor.prompt(document)
                prompts = model.prompts([sample.ids], [sample.vision], model.encode(sample.images), processor.ids.pad)
                done = model.generate(prompts, self._policy(), sampling=Sampling(greedy=True))
                found.append(self._text(done.ids[0, : int(done.lengths[0])].tolist()))
        return found

    def one_by_one(self) -> list[str]:
        """Examples once; one question after the other."""
        return self._remembering(1)

    def batches(self) -> list[str]:
        """Examples once; several questions at a time."""
        return self._remembering(TOGETHER)

    def _remembering(self, batch_size: int) -> list[str]:
        memory_of(self.model).forget()  # the pictures of the run before
        reader = Remembering(self.model.decoder)
        return answer(self.model, self.documents, max_new_tokens=STEPS, batch_size=batch_size, reader=reader)

    def _policy(self) -> FreeText:
        return FreeText(STEPS, self.model.processor.ids.eos, self.model.processor.ids.pad)

    def _text(self, ids: list[int]) -> str:
        return writer_of(self.model, "emu_few_shot").decode(ids)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    torch.manual_seed(0)
    model = zoo.create("emu_tiny", overrides=[] if options.quick else SIZES).eval()
    ways = Ways(model, 3 if options.quick else QUESTIONS)
    rivals: dict[str, Callable[[], list[str]]] = {
        "each question anew": ways.anew,
        "examples once, one by one": ways.one_by_one,
        "examples once, batches of 8": ways.batches,
    }
    answers = {name: way() for name, way in rivals.items()}
    times = alternate(rivals, options.repeats, 0)
    plain = "each question anew"
    rows = [
        {
            "way": name,
            "questions": len(ways.documents),
            "examples": SHOTS,
            "s": min(taken),
            "questions/s": len(ways.documents) / min(taken),
            "times faster": ratio(times[plain], taken),
            "same answers": sum(one == other for one, other in zip(answers[name], answers[plain], strict=True)),
        }
        for name, taken in times.items()
    ]
    record("emu_few_shot", rows, "python benchmarks/emu_few_shot.py", options.threads, not options.quick)


if __name__ == "__main__":
    main()
