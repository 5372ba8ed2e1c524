"""Byte-level vocabularies: which strings of bytes are tokens, in the order in which they are merged.

A vocabulary knows its size without its file, so that a model's shapes need none; ranks are read when text is encoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from multimodal_zoo.addresses import package_folders
from multimodal_zoo.files import reading
from multimodal_zoo.registry import TOKENIZERS, build
from multimodal_zoo.tokenizers.carrying import carried_node, copied_node
from multimodal_zoo.tokenizers.clip_bpe import byte_symbols
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL

#: Where one word ends and the next begins (the Emu3 tokenizer's rule): English contractions in any case, letters with
#: at most one other sign in front, single digits, signs with a blank in front and line ends behind, line ends, blanks.
SPLIT = r"'(?i:[stmd]|re|ve|ll)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
RANKS_FILE, VISION_FILE = "emu3.tiktoken", "emu3_vision_tokens.txt"
Ranks = dict[bytes, int]


class Vocabulary(Protocol):
    """Tokens of ordinary text.

    Attributes:
        size: how many there are.
    """

    size: int

    def ranks(self) -> Ranks:
        """Bytes of each token -> its id; ids are 0 to size - 1, single bytes among them."""
        ...


def check_ranks(ranks: Mapping[bytes, int], what: str) -> Ranks:
    """A vocabulary that can spell everything.

    Raises:
        ValueError: ids that are not 0, 1, 2, ..., or a byte that is no token.
    """
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{what}: the ranks must be 0 to {len(ranks) - 1}, each once")
    absent = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if absent:
        raise ValueError(f"{what}: {len(absent)} of the 256 single bytes are no token, first {absent[0]:#04x}")
    return dict(ranks)


@lru_cache(4)
def read_ranks(path: str) -> Ranks:
    """The tokens of a file with lines `base64 rank`; remembered, do not change it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is none, or ranks that are no vocabulary.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"texts.vocabulary.path: no file {path}; it must hold lines of base64 and rank")
    ranks: Ranks = {}
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            word, rank = line.split()
            ranks[base64.b64decode(word, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f"{path}, line {number}: {line[:60]!r} is no base64 with a rank") from None
    return check_ranks(ranks, path)


def ranks_text(ranks: Mapping[bytes, int]) -> str:
    """What a file of these tokens holds, in the order of their ranks."""
    ordered = sorted(ranks, key=lambda word: ranks[word])
    return "".join(f"{base64.b64encode(word).decode()} {ranks[word]}\n" for word in ordered)


def check_vision_tokens(path: str | Path) -> int:
    """The number of visual tokens in a checkpoint's list of them, which must be the published one.

    Args:
        path: `emu3_vision_tokens.txt`: a special token in each line, in the order of their ids.

    Raises:
        ValueError: other tokens or another order than `emu3_ids` numbers.
    """
    with reading(path, "list of visual tokens"):
        words = Path(path).read_text(encoding="utf-8").split("\n")
    words = words[:-1] if words[-1] == "" else words
    first = len(words) - 3
    expected = [*SPECIAL[-3:], *(f"<|visual token {code:06d}|>" for code in range(first))]
    for number, (found, wanted) in enumerate(zip(words, expected, strict=False), start=1):
        if found != wanted:
            raise ValueError(
                f"{path}, line {number}: {found!r}; expected {wanted!r}: the ids would mean something else"
            )
    if first < 1:
        raise ValueError(f"{path} has {len(words)} lines; expected three and one for each visual token")
    return first


def vocabulary_node(folder: str | Path) -> dict[str, Any]:
    """The tokenizer's node for the files of a published checkpoint folder.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: files that do not fit the published numbering.
    """
    ranks, vision = Path(folder) / RANKS_FILE, Path(folder) / VISION_FILE
    for file in (ranks, vision):
        if not file.is_file():
            raise FileNotFoundError(f"{folder} has no {file.name}; the tokenizer needs {RANKS_FILE} and {VISION_FILE}")
    node = {"type": "tiktoken_file", "path": str(ranks), "size": len(read_ranks(str(ranks)))}
    return {"type": "emu3_tokenizer", "codebook_size": check_vision_tokens(vision), "vocabulary": node}


def packaged_ranks() -> Path:
    """The copy of the published vocabulary that comes with the package dashscope, found without importing it.

    Raises:
        FileNotFoundError: dashscope is not installed.
    """
    for folder in package_folders("dashscope"):
        path = folder / "resources" / "qwen.tiktoken"
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"texts.vocabulary.path is null, and the package dashscope, which holds a copy of the published vocabulary, is "
        f"not installed: pip install dashscope, or set the path to {RANKS_FILE} of a checkpoint folder"
    )


@TOKENIZERS.register_module(name="tiktoken_file")
class TiktokenFile:
    """The tokens in a file with lines `base64 rank`.

    Args:
        path: the file; None takes the copy of the published one that the package dashscope holds.
        size: number of tokens, known before the file is read.
        sha256: what the file must hash to; None takes any.

    Raises:
        ValueError: no positive size.
    """

    def __init__(self, path: str | None, size: int, sha256: str | None = None) -> None:
        if size < 256:
            raise ValueError(f"texts.vocabulary.size is {size}; the 256 single bytes alone are more")
        self.path, self.size, self.sha256 = path, size, sha256

    def file(self) -> Path:
        """Where the file is.

        Raises:
            FileNotFoundError: None was given, and no installed package has it.
        """
        return packaged_ranks() if self.path is None else Path(self.path)

    def ranks(self) -> Ranks:
        """Bytes of each token -> its id.

        Raises:
            FileNotFoundError: no file.
            ValueError: another file than was promised, or no vocabulary.
        """
        path = self.file()
        ranks = read_ranks(str(path))
        if self.sha256 is not None and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != self.sha256:
            raise ValueError(f"{path} has sha256 {found}; texts.vocabulary.sha256 is {self.sha256}")
        if len(ranks) != self.size:
            raise ValueError(f"{path} holds {len(ranks)} tokens; texts.vocabulary.size is {self.size}")
        return ranks

    @staticmethod
    def carry(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node of a copy of the file inside `folder`; see `copied_node`."""
        try:
            file = TiktokenFile(node.get("path"), node["size"]).file()
        except FileNotFoundError:
            file = None
        return copied_node(node, file, folder, RANKS_FILE)

    @staticmethod
    def carried(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node with the place of its file inside `folder`, wherever that was moved."""
        return carried_node(node, folder)


@lru_cache(4)
def _trained(texts: tuple[str, ...], size: int) -> Ranks:
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.trainers import BpeTrainer

    from tokenizers import Regex, Tokenizer

    model = Tokenizer(BPE())
    words, letters = Split(Regex(SPLIT), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = Sequence([words, letters])
    alphabet = ByteLevel.alphabet()
    model.train_from_iterator(texts, BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    bytes_of = {symbol: byte for byte, symbol in byte_symbols().items()}
    ranks = {bytes([byte]): byte for byte in range(256)}
    for word, _ in sorted(model.get_vocab().items(), key=lambda item: item[1]):
        ranks.setdefault(bytes(bytes_of[symbol] for symbol in word), len(ranks))
    return ranks


def train_vocabulary(texts: Iterable[str], size: int) -> Ranks:
    """Byte-pair tokens from texts: the 256 bytes, then the most frequent pair inside words, again and again.

    Args:
        texts: what to learn from; normalised to NFC first, as the tokenizer does.
        size: number of tokens, at least 256.

    Raises:
        ValueError: a size below 256, or texts with fewer different pairs.
    """
    if size < 256:
        raise ValueError(f"texts.vocabulary.size is {size}; the 256 single bytes alone are more")
    ranks = _trained(tuple(unicodedata.normalize("NFC", text) for text in texts), size)
    if len(ranks) < size:
        raise ValueError(f"texts.vocabulary.size is {size}; the texts give {len(ranks)} tokens at most")
    return ranks


@TOKENIZERS.register_module(name="trained_vocabulary")
class TrainedVocabulary:
    """Tokens learnt from texts, anew in each process: the same texts give the same tokens.

    Args:
        texts: what to learn from.
        size: number of tokens.
    """

    def __init__(self, texts: Sequence[str], size: int) -> None:
        self.texts, self.size = texts, size

    def ranks(self) -> Ranks:
        """Bytes of each token -> its id; see `train_vocabulary`."""
        return train_vocabulary(self.texts, self.size)

    @staticmethod
    def carry(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node of a file inside `folder` that holds what was learnt."""
        ranks = train_vocabulary(build(node["texts"]), node["size"])
        (folder / RANKS_FILE).write_text(ranks_text(ranks))
        return {"type": "tiktoken_file", "path": RANKS_FILE, "size": node["size"]}
