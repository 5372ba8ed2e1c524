"""Which column of a table is what: given by name, or recognised where nobody said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from multimodal_zoo.registry import CAPTIONS

#: Names by which columns are recognised, in this order: LAION's own, LAION-COCO's, CapsFusion-120M's (its page lists
#: image_url, laion_2b, laion_coco, capsfusion), img2dataset's and what this library writes.
RAW = ("raw", "raw_caption", "laion_2b", "alt_text", "alt", "TEXT", "caption", "text", "txt")
SYNTHETIC = ("synthetic", "synthetic_caption", "synthetic_captions", "laion_coco", "top_caption", "blip_caption")
URL = ("image_url", "url", "URL")
IMAGE = ("image", "jpg", "image_bytes")
#: The example file of CapsFusion has its key misspelled; what is carried along has one name whatever the file says.
SPELLINGS = {"capsfuion_official": "capsfusion_official"}
#: Columns of written units; their key is the row's own, whatever else they have.
WRITTEN = ("key", "raw", "synthetic", "fused", "status")
KEY = "key"


@dataclass(frozen=True)
class Columns:
    """The columns of a source by what they hold.

    Attributes:
        raw: the web caption; None: there is none, or it is to be recognised.
        synthetic: captions that models wrote, texts or lists of texts; empty: none, or to be recognised.
        url: the picture's address, from which the key is made.
        key: the key itself, unique in the source; recognised in written units, and elsewhere if there is no address.
        image: the encoded picture, as bytes or as a struct with a field `bytes`.
        extra: further columns to carry along; None: all the others.
    """

    raw: str | None = None
    synthetic: tuple[str, ...] = ()
    url: str | None = None
    key: str | None = None
    image: str | None = None
    extra: tuple[str, ...] | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """All columns that have a role of their own, each once."""
        names = [self.raw, *self.synthetic, self.url, self.key, self.image]
        return tuple(dict.fromkeys(name for name in names if name))

    def others(self, found: Sequence[str]) -> tuple[str, ...]:
        """The columns of a file that are carried along, the address among them."""
        if self.extra is None:
            roles = set(self.named) - {self.url}
            return tuple(name for name in found if name not in roles)
        return tuple(name for name in self.extra if name in found)


@CAPTIONS.register_module(name="caption_columns")
def as_columns(
    raw: str | None = None,
    synthetic: str | Sequence[str] | None = None,
    url: str | None = None,
    key: str | None = None,
    image: str | None = None,
    extra: str | Sequence[str] = "all",
) -> Columns:
    """Columns from the words of a configuration; see `Columns`.

    Raises:
        ValueError: `extra` is a text other than "all".
    """
    if isinstance(extra, str) and extra != "all":
        raise ValueError(f"source.extra is {extra!r}; it must be all or a list of columns, [] for none")
    models = () if synthetic is None else (synthetic,) if isinstance(synthetic, str) else tuple(synthetic)
    return Columns(raw, models, url, key, image, None if isinstance(extra, str) else tuple(extra))


def recognise(asked: Columns, found: Sequence[str], file: str, required: Sequence[str]) -> Columns:
    """The columns of a file: those that were asked for, and by their usual names those that were left out.

    Args:
        asked: what the configuration says.
        found: the names that the file has, in its order.
        file: its name, for errors.
        required: what must be there: "raw", "synthetic", "image".

    Raises:
        ValueError: a column that was asked for is missing, or a required one is not recognised.
    """
    for role in ("raw", "synthetic", "url", "key", "image", "extra"):
        value = getattr(asked, role) or ()
        for name in (value,) if isinstance(value, str) else value:
            if name not in found:
                raise ValueError(f"source.{role}: {file} has no column {name!r}; it has {', '.join(found)}")
    url = asked.url or _first(URL, found)
    keyed = KEY in found and (url is None or all(name in found for name in WRITTEN))
    columns = replace(
        asked,
        raw=asked.raw or _first(RAW, found, asked.synthetic),
        url=url,
        key=asked.key or (KEY if keyed else None),
        image=asked.image or _first(IMAGE, found),
    )
    if not asked.synthetic:
        name = _first(SYNTHETIC, found, (columns.raw or "",))
        columns = replace(columns, synthetic=(name,) if name else ())
    for role in required:
        if not getattr(columns, role):
            raise ValueError(
                f"source.{role}: {file} has none of the usual columns for it; it has {', '.join(found) or 'none'}; "
                f"name one with source.{role}=COLUMN, or take {role} out of source.rules.required"
            )
    return columns


def _first(usual: Sequence[str], found: Sequence[str], taken: Sequence[str] = ()) -> str | None:
    return next((name for name in usual if name in found and name not in taken), None)
