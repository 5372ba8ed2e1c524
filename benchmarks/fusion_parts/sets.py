"""Sets of captions of the same training emoji, each as the caption policy of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal_zoo.data.emoji_table import load_table
from multimodal_zoo.data.emoji_triples import Triple, class_sentence, triples

#: Name of a set -> title of its rows, in the order of the table.
SETS = {
    "raw": "raw (web)",
    "synthetic": "synthetic (captioner)",
    "mix": "raw or synthetic, half and half",
    "rules": "fused by rules",
    "smollm2": "fused by SmolLM2-135M as it is",
    "student": "fused by SmolLM2-135M, distilled",
    "names": "clean names (upper bound)",
}
#: Those that `mmzoo fuse` writes.
FUSED = ("rules", "smollm2", "student")
STYLE = "twemoji"

Lines = list[dict[str, Any]]


def read_lines(path: Path) -> Lines:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_lines(path: Path, lines: Lines) -> None:
    """Rows as a file of JSON lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    beside.replace(path)


@dataclass(frozen=True)
class Captions:
    """Where the sets lie: `synthetic.jsonl` of all pictures, `raw.jsonl` and `pairs.jsonl` of training, the fused sets.

    Attributes:
        folder: of all files.
    """

    folder: Path

    @property
    def synthetic(self) -> Path:
        """What the captioner says of every emoji: columns key, synthetic."""
        return self.folder / "synthetic.jsonl"

    @property
    def student(self) -> Path:
        """The run of SmolLM2 that learnt to fuse."""
        return self.folder / "student_model"

    @property
    def pairs(self) -> Path:
        """Raw and synthetic captions of training, what `mmzoo fuse` reads: columns key, raw, synthetic."""
        return self.folder / "pairs.jsonl"

    def table(self, name: str) -> Path:
        """The file of a set."""
        return self.folder / f"{name}.jsonl" if name in (*FUSED, "raw") else self.pairs

    def ready(self, name: str) -> bool:
        """Whether a set is there; names need no file."""
        return name == "names" or self.table(name).exists()

    def policy(self, name: str) -> dict[str, Any]:
        """The part that chooses captions in training: the YAMLs of `conf/caption_policy` with a table by key."""
        if name == "names":
            return {"type": "text_caption"}
        texts = {"type": "caption_table", "path": str(self.table(name))}
        if name == "mix":
            return {"type": "mixed_caption", "shares": {"raw": 0.5, "synthetic": 0.5}, "texts": texts}
        columns = ["fused", "synthetic", "raw"] if name in FUSED else [name]
        return {"type": "column_caption", "columns": columns, "texts": texts}

    def triples(self, split: str = "train") -> list[Triple]:
        """The emoji of a split, with the captioner's sentences."""
        said = {line["key"]: line["synthetic"] for line in read_lines(self.synthetic)}
        return triples(split, STYLE, seed=0, synthetic=said)

    def write_raw(self) -> None:
        """Raw captions alone, which need no captioner."""
        if not self.ready("raw"):
            rows = triples("train", STYLE, seed=0)
            write_lines(self.table("raw"), [{"key": one.key, "raw": one.raw} for one in rows])

    def write_pairs(self) -> None:
        """Raw and synthetic captions, side by side."""
        if not self.pairs.exists():
            rows = self.triples()
            write_lines(self.pairs, [{"key": one.key, "raw": one.raw, "synthetic": one.synthetic} for one in rows])

    def write_fused(self, name: str, answers: Mapping[str, str]) -> None:
        """A set that was fused; where a row has no accepted answer, its synthetic caption will stand in.

        Args:
            name: of the set.
            answers: accepted captions by key.

        Raises:
            ValueError: none of the training emoji has an answer.
        """
        rows = read_lines(self.pairs)
        if not any(row["key"] in answers for row in rows):
            raise ValueError(
                f"{name}: none of {len(answers)} captions belongs to a training emoji ({rows[0]['key']!r})"
            )
        write_lines(self.table(name), [{**row, "fused": answers.get(row["key"], "")} for row in rows])

    def pieces(self) -> Path:
        """A file of the pieces of CLIP's vocabulary that names, raw captions, sentences and targets use.

        It does not depend on what any model wrote, so that all sets are read with the same vocabulary.
        """
        from multimodal_zoo.tokenizers.clip_bpe import ClipTokenizer

        path = self.folder / "pieces.txt"
        if not path.exists():
            tokenizer = ClipTokenizer()
            texts = [text for one in triples("train", STYLE, seed=0) for text in (one.raw, one.fused, one.synthetic)]
            texts += [text for row in load_table() for text in (row.name, *row.keywords, class_sentence(row))]
            known = sorted({number for text in texts for number in tokenizer.words(text)})
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{number}\n" for number in known))
        return path
