"""LLaMA's tokenizer: a sentencepiece file, with begin, end and unknown token as special ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.files import reading
from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.carrying import carried_node, copied_node
from multimodal_zoo.tokenizers.json_tokenizer import read_facts
from multimodal_zoo.tokenizers.words import check_ids, listed, split_special

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

MODEL_FILE = "tokenizer.model"
#: What sentencepiece writes in place of a blank.
BLANK = "\u2581"


@TOKENIZERS.register_module(name="llama_tokenizer")
class LlamaTokenizer:
    """Texts to ids and back with a sentencepiece file (LLaMA, Vicuna).

    A blank is put before each text, and once more behind each special token, as Vicuna's published tokenizer did: the
    word USER behind `</s>` is the word USER behind a blank. Nothing else is put before or behind a text. The file is
    opened when the first text or fact is asked for.

    Args:
        path: the file, `tokenizer.model` of a checkpoint folder; None until there is one.
        legacy: whether that blank behind special tokens stays; `legacy` of a folder's `tokenizer_config.json`.
    """

    #: Its publisher puts the begin token in front of a text.
    adds_bos = True

    def __init__(self, path: str | None, legacy: bool = True) -> None:
        self.path, self.legacy = path, legacy

    @cached_property
    def _pieces(self) -> SentencePieceProcessor:
        from sentencepiece import SentencePieceProcessor

        if self.path is None or not Path(self.path).is_file():
            raise FileNotFoundError(
                f"tokenizer.path is {self.path}; texts need {MODEL_FILE} of a checkpoint folder (Vicuna's, EVE's)"
            )
        with reading(self.path, "sentencepiece file"):
            pieces = SentencePieceProcessor(model_file=self.path)
            pieces.id_to_piece(list(range(pieces.get_piece_size())))  # all must be UTF-8, which nobody checks before
            return pieces

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "legacy": self.legacy}

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return int(self._pieces.get_piece_size())

    @property
    def bos_id(self) -> int | None:
        """What begins a sequence."""
        return int(self._pieces.bos_id())

    @property
    def eos_id(self) -> int | None:
        """What ends an answer."""
        return int(self._pieces.eos_id())

    @property
    def pad_id(self) -> int:
        """What collation fills with: the unknown token, as published."""
        return int(self._pieces.unk_id())

    @cached_property
    def _special(self) -> dict[str, int]:
        ids = (self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id())
        return {str(self._pieces.id_to_piece(number)): number for number in ids if number >= 0}

    @property
    def special_ids(self) -> Mapping[str, int]:
        """String -> id of every special token."""
        return self._special

    def special_id(self, word: str) -> int | None:
        """The id that a string stands for if it is a special token's, else None."""
        return self._special.get(word)

    def encode(self, texts: Iterable[str], special: bool = True) -> list[list[int]]:
        """Ragged rows of ids.

        Args:
            texts: any strings.
            special: whether the strings of special tokens become their ids; False takes them as ordinary text: for
                words of people who are not trusted.

        Raises:
            TypeError: one string in place of several.
        """
        return [self.encode_behind(text, special, behind=False) for text in listed(texts)]

    def encode_behind(self, text: str, special: bool, behind: bool = True) -> list[int]:
        """The ids of a text that stands behind a special token, or (`behind` False) at the beginning."""
        row: list[int] = []
        for piece in split_special(text, self._special) if special else [text]:
            row += [piece] if isinstance(piece, int) else self._words(piece, behind or bool(row))
        return row

    def _words(self, text: str, behind: bool) -> list[int]:
        if self.legacy:
            return list(self._pieces.encode(text))
        text = text.replace(BLANK, " ")
        ids: list[int] = list(self._pieces.encode(text))
        first = self._pieces.id_to_piece(ids[0]) if ids else ""
        if not behind or text.startswith(" ") or not first.startswith(BLANK):
            return ids
        if first == BLANK:
            return ids[1:]
        bare = int(self._pieces.piece_to_id(first[1:]))
        if bare != self._pieces.unk_id():
            return [bare, *ids[1:]]
        guard = self._pieces.encode("\n")  # no word without its blank: behind a line end there is none
        return list(self._pieces.encode(f"\n{text}"))[len(guard) :]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8 become replacement characters.

        Args:
            ids: of the vocabulary.
            skip_special: whether special tokens are left out.

        Raises:
            ValueError: an id outside of the vocabulary.
        """
        names = {number: word for word, number in self._special.items()}
        text = ""
        waiting: list[int] = []
        for number in check_ids(ids, self.vocab_size):
            if number in names:
                text += self._pieces.decode(waiting) + ("" if skip_special else names[number])
                waiting = []
            else:
                waiting.append(number)
        return text + str(self._pieces.decode(waiting))

    @staticmethod
    def carry(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node of a copy of the file inside `folder`; see `copied_node`."""
        return copied_node(node, None if node["path"] is None else Path(node["path"]), folder, MODEL_FILE)

    @staticmethod
    def carried(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node with the place of its file inside `folder`, wherever that was moved."""
        return carried_node(node, folder)


def llama_node(folder: str | Path) -> dict[str, Any]:
    """The tokenizer's node for the files of a published checkpoint folder.

    Raises:
        FileNotFoundError: no `tokenizer.model`.
    """
    model, config = Path(folder) / MODEL_FILE, Path(folder) / "tokenizer_config.json"
    if not model.is_file():
        raise FileNotFoundError(f"{folder} has no {MODEL_FILE}, which the tokenizer needs")
    return {"type": "llama_tokenizer", "path": str(model), "legacy": bool(read_facts(config).get("legacy", True))}
