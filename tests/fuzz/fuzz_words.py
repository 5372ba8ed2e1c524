"""Doors of words: captions to fuse, tokenizer files, folders that commands write, run folders, lists of questions."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz_data import pairs, tar_of
from fuzz_harness import Door
from fuzz_mutations import damaged_lines, damaged_tree, damaged_yaml

from multimodal_zoo.captions.opening import open_source
from multimodal_zoo.data.code_folder import CodeFolder
from multimodal_zoo.evaluation.comparison import collect
from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder
from multimodal_zoo.evaluation.nearest import search_shards
from multimodal_zoo.evaluation.prompt_suites import GenEvalPrompts
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.evaluation.vqa_questions import ConversationQuestions, MmbenchQuestions, QuestionLines
from multimodal_zoo.tokenizers.clip_bpe import ClipTokenizer, read_merges
from multimodal_zoo.tokenizers.json_tokenizer import JsonTokenizer, json_node
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer, llama_node
from multimodal_zoo.tokenizers.vocabularies import check_vision_tokens, ranks_text, read_ranks

Make = Callable[[Path], Path]
ROWS = [
    {"raw": f"a dog {n} on sale!!", "synthetic": f"a dog {n}", "url": f"http://x/{n}", "score": 0.5} for n in range(5)
]


def _file(name: str, content: Callable[[], bytes]) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def _lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def _parquet() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), buffer, row_group_size=2)
    return buffer.getvalue()


def captions(path: Path) -> None:
    """All rows of a source; those that cannot be fused say why and are rows too."""
    source = open_source(str(path), raw="raw", synthetic="synthetic")
    _read(source)


def samples(path: Path) -> None:
    """All rows of a tar of img2dataset."""
    _read(open_source(str(path), raw="caption", synthetic="synthetic"))


def _read(source: Any) -> None:
    _ = source.kinds()
    json.dumps(source.describe())
    for unit in source.units(2):
        for row in source.read(unit):
            f"{row.key} {row.raw} {row.synthetic}".encode()  # what is written later must be UTF-8
    source.close()


@cache
def _bpe() -> bytes:
    merges = ["#version", *(f"{one} {other}</w>" for one in "abc" for other in "abc")]
    return gzip.compress("\n".join(merges).encode(), mtime=0)


def merged(path: Path) -> None:
    """Ids of a text by the merges of a file."""
    read_merges.cache_clear()
    ClipTokenizer(context_length=8, vocab_size=523, vocabulary=str(path)).encode(["a bab"])


@cache
def _tokenizer_json() -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "<end>": 3}, merges=[("a", "b")]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<end>"])
    return made.to_str().encode()


def tokenized(path: Path) -> None:
    """Ids of a text by a `tokenizer.json`, and its text again."""
    made = JsonTokenizer(str(path), eos="<end>", pad="<end>")
    assert made.eos_id is not None
    made.decode(made.encode(["ab a"])[0])


@cache
def _pieces() -> bytes:
    import sentencepiece

    buffer = io.BytesIO()
    texts = iter(["the red dog runs", "a blue cat sits on the mat", "dogs and cats"] * 20)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=buffer, vocab_size=60, model_type="bpe", byte_fallback=False,
        hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return buffer.getvalue()


def spelled(path: Path) -> None:
    """Ids of a text by a sentencepiece file."""
    made = LlamaTokenizer(str(path))
    made.decode(made.encode(["the dog"])[0])


def _ranks() -> bytes:
    return ranks_text({**{bytes([byte]): byte for byte in range(256)}, b"ab": 256}).encode()


def ranked(path: Path) -> None:
    """A vocabulary in tiktoken's form."""
    read_ranks.cache_clear()
    read_ranks(str(path))


def _vision_tokens() -> bytes:
    from multimodal_zoo.tokenizers.emu3_ids import SPECIAL

    return "".join(f"{word}\n" for word in (*SPECIAL[-3:], *(f"<|visual token {n:06d}|>" for n in range(3)))).encode()


def _configured(name: str, content: Callable[[], bytes]) -> Make:
    """A tokenizer's `tokenizer_config.json` beside its file."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({"legacy": False, "eos_token": {"content": "<end>"}, "pad_token": "<end>"}))
        return path

    return make


def embeddings(name: str, suffix: str) -> Make:
    """A folder of embeddings, as `mmzoo embed` writes it."""

    def make(folder: Path) -> Path:
        made = EmbeddingFolder(folder, suffix)
        made.claim({"format": suffix, "model": "m", "data": "d", "weights": "w", "ranks": 1}, {"images": True})
        vectors = np.eye(3, 4, dtype=np.float32)
        made.write(0, {"key": ["a", "b", "c"], "image_embedding": vectors}, {"documents": 3, "images": 3, "texts": 0})
        state = {"shards": 1, "documents": 3, "images": 3, "texts": 0, "skipped": {}, "examples": {}}
        made.finish({**state, "seconds": {"images": 1.0, "texts": 0.0}})
        return folder / name

    return make


def searched(path: Path) -> None:
    """What is nearest in a folder of embeddings, as `mmzoo retrieve` asks, and what a later run of `embed` reads."""
    folder, _ = EmbeddingFolder.open(path.parent)
    search_shards(np.ones((1, 4), np.float32), folder.shards(), "image_embedding", 2, "torch")
    folder.about(0)
    folder.finished()


def _codes(name: str) -> Make:
    def make(folder: Path) -> Path:
        made = CodeFolder(folder)
        made.claim({"weights": "w", "data": "d"})
        state = made.written()
        state.complete = True
        made.write([], state)
        return folder / name

    return make


def resumed(path: Path) -> None:
    """What a later run of `mmzoo tokenize` reads of its folder."""
    folder = CodeFolder(path.parent)
    folder.claim({"weights": "w", "data": "d"})
    folder.written()


def run_folder(folder: Path) -> None:
    """An evaluated run."""
    Result("zero_shot", {"top1": 0.5, "top5": 0.9}, [], {}, {}, ("top1",)).save(folder / "evaluation")
    about = {"variant": "v", "choices": {"model": "m"}, "model": {"type": "t"}}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "model": {"type": "t"}, "optim": {"lr": 0.1}}))
    (folder / "suite.json").write_text(json.dumps({"order": ["zero_shot"], "absent": {}, "failed": {}}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["step", "train/loss"], [1, 2.0], [2, 1.5]])


def _run(name: str) -> Make:
    def make(folder: Path) -> Path:
        run_folder(folder)
        return folder / name

    return make


def compared(path: Path) -> None:
    """The comparison that `mmzoo report` prints, with its page."""
    run = path if (path / "config.yaml").is_file() else path.parent
    run = run.parent if run.name == "evaluation" else run
    out = run.parent / "compared"
    try:
        collect([run]).save(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


QUESTION = {"question_id": 1, "text": "what?", "image": "a.png"}
TOLD = [{"id": "1", "conversations": [{"from": "human", "value": "what?"}], "image": "a.png"}]
SHEET = "index\tquestion\timage\tA\tB\n1\twhat?\taGk=\tone\ttwo\n"

DOORS = (
    Door("captions, JSON lines", _file("rows.jsonl", _lines), captions, damaged_lines),
    Door("captions, JSON lines, gzip", _file("rows.jsonl.gz", lambda: gzip.compress(_lines(), mtime=0)), captions),
    Door("captions, JSON list", _file("rows.json", lambda: json.dumps(ROWS).encode()), captions, damaged_tree),
    Door("captions, parquet", _file("rows.parquet", _parquet), captions),
    Door("captions, tar", _file("rows.tar", pairs), samples),
    Door("captions, tar, gzip", _file("rows.tar.gz", lambda: pairs("w:gz")), samples),
    Door(
        "captions, tar, xz",
        _file("rows.tar.xz", lambda: tar_of({"a.json": b"{}"} | {"b.txt": b"x"}, "w:xz")),
        lambda path: _read(open_source(str(path), raw="txt", synthetic="txt")),
    ),
    Door("merges of CLIP", _file("merges.txt.gz", _bpe), merged),
    Door("tokenizer.json", _file("tokenizer.json", _tokenizer_json), tokenized, damaged_tree),
    Door(
        "tokenizer_config.json",
        _configured("tokenizer.json", _tokenizer_json),
        lambda path: json_node(path.parent, "<end>", "<end>"),
        damaged_tree,
    ),
    Door("tokenizer.model (sentencepiece)", _file("tokenizer.model", _pieces), spelled),
    Door(
        "tokenizer_config.json of LLaMA",
        _configured("tokenizer.model", _pieces),
        lambda path: llama_node(path.parent),
        damaged_tree,
    ),
    Door("vocabulary in tiktoken's form", _file("qwen.tiktoken", _ranks), ranked),
    Door("list of visual tokens", _file("emu3_vision_tokens.txt", _vision_tokens), check_vision_tokens),
    *(
        Door(f"embeddings, shard {suffix}", embeddings(f"000-00000.{suffix}", suffix), searched)
        for suffix in ("npz", "parquet")
    ),
    Door("embeddings, manifest", embeddings("manifest.json", "npz"), searched, damaged_tree),
    Door("embeddings, state", embeddings("rank-000.json", "npz"), searched, damaged_tree),
    Door("codes, manifest", _codes("manifest.json"), resumed, damaged_tree, names=("door",)),
    Door("codes, state", _codes("rank-000.json"), resumed, damaged_tree),
    Door("run, config.yaml", _run("config.yaml"), compared, damaged_yaml, share=10, names=("door",)),
    Door("run, run.json", _run("run.json"), compared, damaged_tree, share=10, names=("door",)),
    Door("run, suite.json", _run("suite.json"), compared, damaged_tree, share=10, names=("door",)),
    Door("run, metrics.csv", _run("metrics.csv"), compared, share=10, names=("door",)),
    Door("run, result", _run("evaluation/zero_shot.json"), compared, damaged_tree, share=10, names=("door",)),
    Door(
        "questions, lines",
        _file("q.jsonl", lambda: (json.dumps(QUESTION) + "\n").encode() * 2),
        lambda path: QuestionLines(str(path.parent), path.name, ".").read(),
        damaged_lines,
    ),
    Door(
        "questions, conversations",
        _file("q.json", lambda: json.dumps(TOLD).encode()),
        lambda path: ConversationQuestions(str(path.parent), path.name, ".").read(),
        damaged_tree,
    ),
    Door(
        "questions, sheet",
        _file("q.tsv", SHEET.encode),
        lambda path: MmbenchQuestions(str(path.parent), path.name).read(),
    ),
    Door(
        "prompts, lines",
        _file("p.jsonl", lambda: b'{"prompt": "a dog", "tag": "x"}\n' * 2),
        lambda path: GenEvalPrompts(str(path)).prompts(),
        damaged_lines,
    ),
)
