"""Synonyms of words: from a given table, or from the database files of a WordNet on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from multimodal_zoo.registry import DATASETS

#: Words whose synonyms are remembered; captions from the web never run out of new ones.
REMEMBERED = 1 << 16
#: Parts of speech of the database files, and the endings that make base forms (WordNet's manual page morphy(7WN)).
ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
KEPT = frozenset(" abcdefghijklmnopqrstuvwxyz")


class Synonyms(Protocol):
    """Gives the synonyms of a word."""

    def __call__(self, word: str) -> Sequence[str]:
        """Sorted, none twice; may hold several words each; empty if there are none."""
        ...


@DATASETS.register_module(name="table_synonyms")
class TableSynonyms:
    """Synonyms as given.

    Args:
        table: word -> its synonyms.
    """

    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        self.table = {word: sorted(set(found)) for word, found in table.items()}

    def __call__(self, word: str) -> Sequence[str]:
        """The word's entry; none for other words."""
        return self.table.get(word, ())


@lru_cache(16)
def _content(path: Path) -> bytes:
    return path.read_bytes()


def _line(content: bytes, word: bytes) -> bytes:
    """The line of a sorted file that starts with a word and a blank; empty if there is none."""
    low, high = 0, len(content)
    while low < high:
        start = content.rfind(b"\n", 0, (low + high) // 2) + 1
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        first = content[start:end].split(b" ", 1)[0]
        # The licence text on top is indented: its lines start with a blank and sort before every word.
        if first == word:
            return content[start:end]
        if first < word:
            low = end + 1
        else:
            high = start
    return b""


@DATASETS.register_module(name="wordnet_synonyms")
class WordnetSynonyms:
    """Every word that shares a meaning with a word in WordNet, in lower-case letters and blanks, without the word.

    The library ships no WordNet. Its database files (WordNet 3.0's for the published runs) are in Debian's and Ubuntu's
    package `wordnet-base`, below /usr/share/wordnet, in NLTK's corpus `wordnet`, and at wordnet.princeton.edu. They
    are read when the first word is asked for.

    Args:
        folder: where index.noun, data.noun, noun.exc and the like are.

    Raises:
        FileNotFoundError: a file is not there.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser()
        needed = [f"{kind}.{part}" for part in ENDINGS for kind in ("index", "data")] + [f"{p}.exc" for p in ENDINGS]
        missing = [name for name in needed if not (self.folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"wordnet_synonyms.folder is {folder!r}, which has no {missing[0]}; name the folder of WordNet's "
                "database files (Debian and Ubuntu: apt install wordnet-base gives /usr/share/wordnet), or take "
                "synonym_replacement out of eda.operations"
            )
        self._found: dict[str, list[str]] = {}

    def __call__(self, word: str) -> Sequence[str]:
        """Sorted synonyms."""
        found = self._found.get(word)
        if found is None:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            names = {_letters(name) for name in self._names(word.lower())}
            found = self._found[word] = sorted(names - {word})
        return found

    def _names(self, word: str) -> Iterator[str]:
        """Every name of every meaning of a word in any part of speech."""
        for part in ENDINGS:
            data = _content(self.folder / f"data.{part}")
            for form in self._forms(word, part):
                for place in self._places(form, part):
                    # offset, file, kind, number of names (hexadecimal), then each name and a number
                    fields = data[place : data.find(b"\n", place)].decode().split()
                    yield from fields[4 : 4 + 2 * int(fields[3], 16) : 2]

    def _places(self, form: str, part: str) -> list[int]:
        """Where a base form's meanings stand in the data file; none if it is no word of this part of speech."""
        fields = _line(_content(self.folder / f"index.{part}"), form.encode()).split()
        return [int(place) for place in fields[len(fields) - int(fields[2]) :]] if fields else []

    def _forms(self, word: str, part: str) -> list[str]:
        """Base forms of a word: itself and its irregular forms, else what stripping its endings gives."""
        irregular = _line(_content(self.folder / f"{part}.exc"), word.encode()).decode().split()[1:]
        stripped = [word]
        forms = [word, *irregular] if irregular else [word, *_stripped(stripped, part)]
        while True:
            known = [form for form in dict.fromkeys(forms) if self._places(form, part)]
            stripped = _stripped(stripped, part)
            if known or irregular or not stripped:
                return known
            forms = stripped


def _stripped(forms: Sequence[str], part: str) -> list[str]:
    return [form[: -len(old)] + new for form in forms for old, new in ENDINGS[part] if form.endswith(old)]


def _letters(name: str) -> str:
    """A database name as a caption would write it; a marker such as (p) behind it is dropped."""
    return "".join(c for c in name.split("(")[0].replace("_", " ").replace("-", " ").lower() if c in KEPT)
