"""Tokenizers in the one-file form of the package tokenizers (`tokenizer.json`), as checkpoint folders hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.files import parsed, reading
from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.carrying import carried_node, copied_node
from multimodal_zoo.tokenizers.words import check_ids, listed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"


@TOKENIZERS.register_module(name="json_tokenizer")
class JsonTokenizer:
    """Texts to ids and back with a `tokenizer.json`: Qwen2's, and others without a begin that they add themselves.

    Nothing is put before or behind a text. The file is opened when the first text or fact is asked for.

    Args:
        path: the file.
        eos: string of the token that ends an answer.
        pad: string of the token that collation fills with.
        bos: string of the token that begins a sequence; None where sequences have no begin.
    """

    def __init__(self, path: str, eos: str, pad: str, bos: str | None = None) -> None:
        self.path, self.eos, self.pad, self.bos = path, eos, pad, bos

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        if not Path(self.path).is_file():
            raise FileNotFoundError(f"tokenizer.path: no file {self.path}; it must be {TOKENIZER_FILE} of a checkpoint")
        with reading(self.path, TOKENIZER_FILE):
            return Tokenizer.from_file(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "eos": self.eos, "pad": self.pad, "bos": self.bos}

    def _named(self, word: str, key: str) -> int:
        number = self.special_id(word)
        if number is None:
            known = ", ".join(self._special) or "none"
            raise ValueError(f"tokenizer.{key} is {word!r}; the special tokens of {self.path} are {known}")
        return number

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids."""
        return int(max(self._tokenizer.get_vocab(with_added_tokens=True).values())) + 1

    @property
    def bos_id(self) -> int | None:
        """What begins a sequence, or None."""
        return None if self.bos is None else self._named(self.bos, "bos")

    @property
    def eos_id(self) -> int | None:
        """What ends an answer."""
        return self._named(self.eos, "eos")

    @property
    def pad_id(self) -> int:
        """What collation fills with."""
        return self._named(self.pad, "pad")

    @cached_property
    def _special(self) -> dict[str, int]:
        return {str(token.content): int(i) for i, token in self._tokenizer.get_added_tokens_decoder().items()}

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
        words = listed(texts)
        self._tokenizer.encode_special_tokens = not special
        return [list(row.ids) for row in self._tokenizer.encode_batch(words, add_special_tokens=False)]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8 become replacement characters.

        Args:
            ids: of the vocabulary.
            skip_special: whether special tokens are left out.

        Raises:
            ValueError: an id outside of the vocabulary.
        """
        return str(self._tokenizer.decode(check_ids(ids, self.vocab_size), skip_special_tokens=skip_special))

    @staticmethod
    def carry(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node of a copy of the file inside `folder`; see `copied_node`."""
        return copied_node(node, Path(node["path"]), folder, TOKENIZER_FILE)

    @staticmethod
    def carried(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node with the place of its file inside `folder`, wherever that was moved."""
        return carried_node(node, folder)


def json_node(folder: str | Path, eos: str, pad: str) -> dict[str, Any]:
    """The tokenizer's node for a published checkpoint folder.

    Args:
        folder: has `tokenizer.json`.
        eos: string of the token that ends an answer.
        pad: string of the token that collation fills with; those that `tokenizer_config.json` names come first.

    Raises:
        FileNotFoundError: no `tokenizer.json`.
    """
    file, config = Path(folder) / TOKENIZER_FILE, Path(folder) / "tokenizer_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {TOKENIZER_FILE}, which the tokenizer needs")
    facts = read_facts(config)
    words = {key: _word(facts.get(f"{key}_token")) or other for key, other in (("eos", eos), ("pad", pad))}
    return {"type": "json_tokenizer", "path": str(file), **words, "bos": _word(facts.get("bos_token"))}


def read_facts(config: Path) -> dict[str, Any]:
    """What a `tokenizer_config.json` says; nothing where there is none.

    Raises:
        ValueError: the file is damaged, or something else.
    """
    if not config.is_file():
        return {}
    with reading(config, "tokenizer's configuration"):
        facts = parsed(config.read_bytes())
        if not isinstance(facts, dict):
            raise TypeError(f"expected an object, found {type(facts).__name__}")
        return facts


def _word(token: Any) -> str | None:
    word = token.get("content") if isinstance(token, dict) else token
    return word if isinstance(word, str) else None
