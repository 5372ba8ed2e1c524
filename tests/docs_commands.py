"""`python tests/docs_commands.py [PATTERN] [FIRST]`: runs the documented commands, small, in a scratch folder.

Every command is matched by a rule: what it needs first and the words that make it small, or why it is not run here. The
first rule that fits counts. tests/test_docs_commands.py holds that none is left over.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Rule(NamedTuple):
    """What is done with the commands that a pattern finds.

    Attributes:
        pattern: searched in the words of a command, joined by blanks.
        words: put behind the command's own.
        needs: names of commands of `FIRST` and of functions of `MADE`.
        reason: why such a command is not run; None: it is.
        instead: patterns in words of the command, and what stands in their place.
    """

    pattern: str
    words: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    reason: str | None = None
    instead: tuple[tuple[str, str], ...] = ()


TINY = ("trainer.max_steps=2", "trainer.limit_val_batches=1", "data.batch_size=8", "threads=1")
SHORT = ("trainer.max_steps=2", "trainer.limit_val_batches=1", "threads=1")
SHARE = ("+data.train.share=0.05",)
PLAIN = ("evaluation=null",)
#: What several commands need first.
FIRST = {
    "runs/mine": ("train", "quickstart", "run.dir=runs/mine", *TINY, *SHARE, *PLAIN),
    "runs/clip": ("train", "clip_benchmark/clip_emoji", "run.dir=runs/clip", *TINY, "data.train.share=0.05", *PLAIN),
    "runs/teacher": ("train", "eva_clip/tiny", "run.dir=runs/teacher", *TINY, *SHARE, *PLAIN),
    "runs/emu3": ("train", "emu3/emoji_smoke", "run.dir=runs/emu3"),
    "runs/eve": ("train", "eve/emoji_smoke", "run.dir=runs/eve"),
    "runs/emu": ("train", "emu/emoji_smoke", "run.dir=runs/emu"),
    "runs/fast_bev": ("train", "fast_bev/synthetic_smoke", "run.dir=runs/fast_bev"),
    "runs/student": ("train", "capsfusion/emoji_distill_smoke", "run.dir=runs/student"),
    "captions": ("data", "emoji-captions", "captions", "rows=40"),
    "fused": ("fuse", "captions", "out=fused", "fusion_engine=template"),
    "embeddings": ("embed", "runs/mine", "pictures", "out=embeddings"),
    "hashes.npz": ("dedupe", "pictures", "out=hashes.npz"),
}
NEEDS = {"fused": ("captions",), "embeddings": ("runs/mine", "pictures"), "hashes.npz": ("pictures",)}
#: The detector and the shards that are here, in place of the page's.
DETECTOR = (r"^runs/fast_bev\w*$", "runs/fast_bev")
SHARDS = (r"^shards/.*", "emoji_shards/{00000..00001}.tar")
PUBLISHED = "needs a published weight file or data set, and none is at hand"
LONG = "takes minutes to hours of processor time; its smoke recipe goes through every step"
RULES = (
    # what cannot be run here
    Rule(r"^app\b", reason="serves a page until it is stopped; tests/gallery drives it in a browser"),
    Rule(r"device=cuda|trainer=gpu|trainer=(fsdp|ddp) ", reason="needs a GPU"),
    Rule(r"launcher=slurm", reason="needs a cluster"),
    Rule(r"runner.address=auto|runner=ray", reason="needs a Ray cluster; tests/captions start one of this machine"),
    Rule(r"fusion_engine=openai", reason="needs a server; tests/captions have one"),
    Rule(r" weights=|hf://|psz16|part:llama|Emu2-Chat|^convert runs/(emu2|eva_clip_b16)", reason=PUBLISHED),
    Rule(r"fusion_prompt.file=mine", reason="needs a prompt of one's own; tests/captions have one"),
    Rule(r"^train (clip/|emu/(?!emoji)|eva_clip/b16|fast_bev/m0|capsfusion/distill |emu3/stage1)", reason=PUBLISHED),
    Rule(r"^train clip_benchmark/\w+_(vit_b32|r50)", reason=PUBLISHED),
    Rule(r"benchmark_root=|capsfusion_120m|^fuse shards/\{|pairs/", reason=PUBLISHED),
    Rule(r"^train (emu|emu3|eve|capsfusion)/emoji( |$)", reason=LONG),
    Rule(r"^train \w+/emoji_(distill |prealign|captions|language)", reason=LONG),
    Rule(r"^train \./both\.yaml", reason="two stages of emu3/emoji; tests/test_stages.py trains such files"),
    # shards
    Rule(r"^train data=webdataset .*emoji_shards", words=(*TINY, *PLAIN), needs=("emoji_shards",)),
    Rule(r"^embed .*shards/", needs=("runs/mine", "emoji_shards"),
         instead=(("ranks=8", "ranks=2"), SHARDS)),
    Rule(r"^dedupe .*shards/", needs=("hashes.npz", "emoji_shards"),
         instead=((r"^against=.*", "against=hashes.npz"), SHARDS)),
    Rule(r"^fuse (FOLDER|shards/) .*retry", words=("fusion_engine=template",), needs=("fused",),
         instead=((r"^(FOLDER|shards/)$", "captions"),)),
    Rule(r"^fuse (FOLDER|shards/) ", words=("fusion_engine=template",), needs=("captions",),
         instead=((r"^(FOLDER|shards/)$", "captions"),)),
    Rule(r"^convert package"),
    # counting, listing, describing
    Rule(r"^(list|describe|plan (?!fuse))"),
    Rule(r"^plan fuse", needs=("fused",)),
    Rule(r"--cfg job"),
    # training
    Rule(r"^train fast_bev/synthetic_smoke", words=("run.dir=runs/smoke",)),
    Rule(r"^train fast_bev/synthetic ",
         words=(*SHORT, "data.train.folder=scenes", "data.train.scenes=2", "data.train.frames=4", *PLAIN)),
    Rule(r"^train (emu|emu3|eve)/emoji_smoke"),
    Rule(r"^train eva_clip/mim_tiny", words=(*TINY, *SHARE, *PLAIN), needs=("runs/teacher",)),
    Rule(r"^train eva_clip/tiny initial_weights", words=(*TINY, *SHARE, *PLAIN), reason=None, needs=("runs/teacher",),
         instead=(("runs/mim", "runs/teacher"),)),
    Rule(r"^train eva_clip/tiny", words=("trainer.max_steps=2", "data.batch_size=8", *SHARE, *PLAIN),
         instead=(("run.dir=runs/teacher", "run.dir=runs/again_teacher"),)),
    Rule(r"part:runs/clip", words=(*TINY, *SHARE, *PLAIN), needs=("runs/clip",)),
    Rule(r"initial_weights=runs/long", words=(*TINY, *SHARE, *PLAIN), needs=("runs/mine",),
         instead=(("runs/long", "runs/mine"),)),
    Rule(r"^train clip_benchmark/|^train declip/", words=(*TINY, "data.train.share=0.05", *PLAIN)),
    Rule(r"^train .*data=folder", words=(*TINY, *PLAIN), needs=("pictures",),
         instead=((r"batch_size=\d+", "batch_size=8"),)),
    Rule(r"^train .*data=fused", words=(*TINY, *PLAIN), needs=("fused",)),
    Rule(r"^train .*trainer=ddp_cpu", reason="two processes; tests/training start them"),
    Rule(r"^train .*optimized_metric", words=(*TINY, *SHARE, "benchmark@evaluation=emoji_quick")),
    Rule(r"^train .*launcher=local", words=(*SHARE, *PLAIN)),
    Rule(r"^train( quickstart)?( |$)", words=(*TINY, *SHARE, *PLAIN),
         instead=(("run.dir=runs/mine", "run.dir=runs/again"),)),
    # runs and what is made of them
    Rule(r"^eval runs/mine", words=("only=[unseen_twemoji]",), needs=("runs/mine",)),
    Rule(r"^(embed|export) runs/mine", needs=("runs/mine", "pictures")),
    Rule(r"^eval clip_tiny,filip_tiny", words=("only=[unseen_twemoji]",)),
    Rule(r"^retrieve", needs=("embeddings",)),
    Rule(r"^report .*figures=", needs=("runs/mine",), instead=((r"^figures=.*", "title=runs"),)),
    Rule(r"^report", needs=("runs/mine", "runs/clip"),
         instead=(("runs/one", "runs/mine"), ("runs/two", "runs/clip"), ("runs/clip_emoji", "runs/mine"),
                  ("runs/declip_emoji", "runs/clip"), (r"evaluations/\*", "runs/mine"))),
    Rule(r"^eval runs/emu3", words=("only=[drawn_unseen_twemoji]", "benchmark.drawn_unseen_twemoji.dataset.size=2"),
         needs=("runs/emu3", "runs/mine"), instead=(("runs/quickstart", "runs/mine"),)),
    Rule(r"^eval runs/eve\b", words=("only=[named_unseen_twemoji]", "benchmark.named_unseen_twemoji.dataset.size=12"),
         needs=("runs/eve",)),
    Rule(r"^eval runs/emu/", words=("only=[imagined_unseen]", "benchmark.imagined_unseen.dataset.size=12"),
         needs=("runs/emu",)),
    Rule(r"^(convert|generate|chat) runs/emu3", needs=("runs/emu3",), instead=(("honeybee.png", "photo.jpg"),)),
    Rule(r"^(convert|generate|chat) runs/eve\b", needs=("runs/eve", "pictures"),
         instead=(("honeybee.png", "photo.jpg"),)),
    Rule(r"^convert runs/eva_clip", needs=("runs/teacher",),
         instead=(("runs/eva_clip_tiny", "runs/teacher"), ("runs/eva_clip", "runs/teacher"))),
    Rule(r"^generate runs/emu", needs=("runs/emu",), instead=(("pages=512", "pages=32"),)),
    Rule(r"^detect runs/fast_bev", needs=("runs/fast_bev", "drive"),
         instead=(("^pictures$", "drive"), (r"^calibration\.json$", "drive/calibration.json"), DETECTOR)),
    Rule(r"^export runs/fast_bev", needs=("runs/fast_bev", "drive"),
         instead=((r"\w+\.json", "drive/calibration.json"), DETECTOR)),
    Rule(r"^eval runs/fast_bev", needs=("runs/fast_bev", "drive"), instead=(DETECTOR,),
         words=("benchmark.detection.dataset={type: synthetic_scenes, folder: drive, split: val, scenes: 2, frames: 2, "
                "width: 200, height: 112}",)),
    Rule(r"^dedupe", needs=("pictures",), instead=(("evaluation_pictures/", "pictures"),)),
    Rule(r"^data synth-nuscenes", instead=(("scenes=24", "scenes=2"), ("frames=20", "frames=2"))),
    Rule(r"^data emoji-captions .*rows=", instead=(("^captions$", "few_captions"), ("rows=200", "rows=20"))),
    Rule(r"^data emoji-captions", instead=(("^captions$", "more_captions"),)),
    Rule(r"^fuse captions .*fusion_engine=zoo", words=("out=own",), needs=("captions", "runs/student"),
         instead=((r"runs/student$", "runs/student/student"),)),
    Rule(r"^fuse captions .*retry", needs=("fused",), words=("fusion_engine=template",)),
    Rule(r"^fuse captions", words=("fusion_engine=template", "out=other"), needs=("captions",)),
)  # fmt: skip


def commands() -> list[tuple[str, ...]]:
    """The words behind `mmzoo` of every command of the documentation, each once."""
    spec = importlib.util.spec_from_file_location("test_docs", ROOT / "tests" / "test_docs.py")
    assert spec is not None
    assert spec.loader is not None
    documents = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(documents)
    return [tuple(words) for _, words in documents.commands() if not words[0].startswith("-")]


def rule_of(words: Sequence[str]) -> Rule | None:
    """The first rule that fits a command."""
    line = " ".join(words)
    return next((rule for rule in RULES if re.search(rule.pattern, line)), None)


def small(words: Sequence[str], rule: Rule, number: int = 0) -> list[str]:
    """The command as it is run: the rule's replacements, its words where the command lacks their keys, a new `out`.

    Steps are the rule's in any case.

    Args:
        words: the command.
        rule: its rule.
        number: goes before what `out=` names, which no command may find there, unless the rule needs it.
    """
    chosen = list(words)
    for old, new in rule.instead:
        chosen = [re.sub(old, new, word) for word in chosen]
    if any(word.startswith("trainer.max_steps=") for word in rule.words):  # fewer than the page's
        chosen = [word for word in chosen if not word.startswith("trainer.max_steps=")]
    keys = {word.lstrip("+~").partition("=")[0] for word in chosen}
    chosen += [word for word in rule.words if word.lstrip("+~").partition("=")[0] not in keys]
    kept = {f"out={name}" for name in rule.needs}
    return [f"out={number}_{w[4:]}" if w.startswith("out=") and w not in kept else w for w in chosen]


def draw(name: str) -> None:
    """Pictures with a table beside them, and the single files that commands name."""
    from PIL import Image

    Path(name).mkdir(exist_ok=True)
    for number, colour in enumerate(("red", "green", "blue", "white", "black", "orange", "purple", "grey")):
        Image.new("RGB", (64, 64), colour).save(f"{name}/{number}.png")
    rows = "".join(f"{number}.png,a picture of number {number}\n" for number in range(8))
    Path("pairs.csv").write_text(f"filepath,title\n{rows}")
    for file in ("query.png", "photo.jpg"):
        Image.new("RGB", (64, 64), "red").save(file)


def drive(name: str) -> None:
    """A drawn key frame of a car with six cameras, and the calibration that a user writes down of it."""
    from multimodal_zoo.data.synthetic_scenes import synthetic_scenes

    info = synthetic_scenes(name, "train", scenes=2, frames=2, width=200, height=112)[1].info
    cameras = {
        camera: {"image": one.path, "intrinsic": one.intrinsic.tolist(), "sensor2lidar": one.sensor2lidar.tolist()}
        for camera, one in info.cameras.items()
    }
    poses = {"lidar2ego": info.lidar2ego.tolist(), "ego2global": info.ego2global.tolist()}
    Path(name, "calibration.json").write_text(json.dumps({**poses, "cameras": cameras}))


def write_shards(name: str) -> None:
    """Emoji as tars, in the words of docs/data.md."""
    from multimodal_zoo import build

    pairs = build({"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["train"], "image_size": 72, "share": 0.03})
    build({"type": "webdataset_export", "folder": name, "shard_size": -(-len(pairs) // 4), "suffix": "webp"})(pairs)


#: What is made without a command.
MADE = {"pictures": draw, "drive": drive, "emoji_shards": write_shards}


def prepare(name: str, done: set[str]) -> None:
    """Make what a command needs, once."""
    from multimodal_zoo import cli

    if name in done:
        return
    done.add(name)
    for before in NEEDS.get(name, ()):
        prepare(before, done)
    if name in MADE:
        MADE[name](name)
    elif cli.main(list(FIRST[name])) != 0:
        raise RuntimeError(f"what commands need failed: mmzoo {' '.join(FIRST[name])}")


def main(pattern: str = ".", first: str = "0") -> int:
    """Run the commands whose words match a pattern, from one number on; the number of those that failed."""
    from multimodal_zoo import cli

    failed, done = 0, set()
    draw("pictures")
    for number, words in enumerate(commands()):
        rule = rule_of(words)
        assert rule is not None, words
        if number < int(first) or not re.search(pattern, " ".join(words)) or rule.reason is not None:
            continue
        start, line = time.process_time(), small(words, rule, number)
        try:
            for name in rule.needs:
                prepare(name, done)
            code: object = cli.main(line)
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
        failed += code not in (0, None)
        seconds = time.process_time() - start
        print(f"@ {number} {'ok' if code in (0, None) else code}  {seconds:.1f} s  mmzoo {' '.join(line)}", flush=True)
    return failed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        sys.exit(min(main(*sys.argv[1:3]), 1))
