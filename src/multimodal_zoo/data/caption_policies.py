"""Which of a picture's captions a model learns from: raw, synthetic, rewritten, mixed or fused.

The five sets that CapsFusion compares (arXiv 2310.20550) are YAMLs in `conf/caption_policy` over two samplers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from multimodal_zoo.data.caption_table import KINDS, CaptionTable, texts_of
from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="column_caption")
class ColumnCaption:
    """The first of some columns that has a caption, from the document's own facts or from a table.

    Of several synthetic captions one is drawn. A fused caption counts only where it was accepted (`status`).

    Args:
        columns: of `raw`, `synthetic`, `rewrite` and `fused`, in the order in which they stand in for each other.
        texts: where captions are looked up; None takes those of the document itself (`raw`, `synthetic`, `fused` and
            `status` in meta, as in the shards that `mmzoo fuse` writes).
        by: fact of the document that is the key in the table.
        otherwise: what documents get whose key or captions are missing; None: an unknown key is an error, and a
            document without captions is unusable.

    Raises:
        ValueError: no or unknown columns, or a table without the first one.
    """

    def __init__(
        self,
        columns: Sequence[str],
        texts: CaptionTable | None = None,
        by: str = "key",
        otherwise: CaptionSampler | None = None,
    ) -> None:
        self.columns = _kinds(columns, "columns")
        _check_table(texts, self.columns[:1])
        self.texts, self.by, self.otherwise = texts, by, otherwise

    def __call__(self, document: Document, random: Random) -> str:
        """One caption.

        Raises:
            ValueError: the table has no row with the document's key.
            UnusableError: none of the columns has a caption.
        """
        for _, texts in _found(document, self.columns, self.texts, self.by, self.otherwise is not None):
            return texts[0] if len(texts) == 1 else random.choice(texts)
        return _missing(document, random, self.columns, self.otherwise)


@DATASETS.register_module(name="mixed_caption")
class MixedCaption:
    """A caption of one kind or another, drawn anew for each sample.

    Where a picture lacks captions of a kind, the other kinds are drawn in the same ratio.

    Args:
        shares: weight of each kind, `{raw: 0.5, synthetic: 0.5}`; only their ratios matter.
        texts: where captions are looked up; see `ColumnCaption`.
        by: fact of the document that is the key in the table.
        otherwise: what documents get whose key or captions are missing; see `ColumnCaption`.

    Raises:
        ValueError: no or unknown kinds, a weight that is not above 0, or a table without one of the kinds.
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        texts: CaptionTable | None = None,
        by: str = "key",
        otherwise: CaptionSampler | None = None,
    ) -> None:
        self.columns = _kinds(shares, "shares")
        self.shares = {kind: float(shares[kind]) for kind in self.columns}
        if min(self.shares.values()) <= 0:
            raise ValueError(f"data.captions.shares is {self.shares}; weights are above 0, leave a kind out instead")
        _check_table(texts, self.columns)
        self.texts, self.by, self.otherwise = texts, by, otherwise

    def __call__(self, document: Document, random: Random) -> str:
        """One caption.

        Raises:
            ValueError: the table has no row with the document's key.
            UnusableError: none of the kinds has a caption.
        """
        found = dict(_found(document, self.columns, self.texts, self.by, self.otherwise is not None))
        if not found:
            return _missing(document, random, self.columns, self.otherwise)
        kind = random.choices(list(found), [self.shares[kind] for kind in found])[0]
        return random.choice(found[kind])


def _kinds(given: Iterable[str], name: str) -> tuple[str, ...]:
    kinds = tuple(given)
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise ValueError(
            f"data.captions.{name} has {', '.join(kinds) or 'nothing'}; it names some of {', '.join(KINDS)}"
        )
    return kinds


def _check_table(texts: CaptionTable | None, kinds: Sequence[str]) -> None:
    for kind in kinds if texts is not None else ():
        if texts is not None and kind not in texts.kinds:
            raise ValueError(
                f"data.captions: {texts.path} has no column of {kind} captions; it has {', '.join(texts.kinds)}"
            )


def _found(
    document: Document, kinds: Sequence[str], texts: CaptionTable | None, by: str, known_only: bool
) -> Iterable[tuple[str, list[str]]]:
    """The captions of those kinds of which a document has any, in the order of the kinds."""
    row: Mapping[str, object] = document.meta
    if texts is not None:
        key = str(document.meta.get(by, ""))
        row = {} if known_only and key not in texts else texts.row(key)
    for kind in kinds:
        captions = texts_of(row, kind)
        if captions:
            yield kind, captions


def _missing(document: Document, random: Random, kinds: Sequence[str], otherwise: CaptionSampler | None) -> str:
    if otherwise is None:
        raise UnusableError(f"no {' or '.join(kinds)} caption", document.key)
    return otherwise(document, random)
