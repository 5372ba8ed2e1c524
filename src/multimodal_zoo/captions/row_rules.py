"""From what a file holds to a row of captions: every row comes out, one that cannot be fused with what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_zoo.captions.columns import SPELLINGS, Columns
from multimodal_zoo.captions.rows import CaptionRow, key_of
from multimodal_zoo.registry import CAPTIONS

#: ASCII control characters but for white space: tabs and line ends are common in alt texts and harm nobody.
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
SURROGATE = re.compile("[\ud800-\udfff]")
DAMAGED, PICTURES, REQUIRED = ("fail", "repair"), ("check", "decode", "carry"), ("raw", "synthetic", "image")


@CAPTIONS.register_module(name="row_rules")
class RowRules:
    """What a row must be to be fused; a row that is not becomes one with a `problem`, it is never left out.

    Args:
        longest: characters that a caption may have.
        required: of "raw", "synthetic" and "image", what a row needs; None: both captions. Where a captioner writes the
            synthetic one, the raw one is enough.
        damaged: captions that are not UTF-8 or hold control characters: "fail", or "repair": such bytes become the
            replacement character and control characters spaces.
        pictures: "check" reads their headers, "decode" their pixels, "carry" takes them as they are.

    Raises:
        ValueError: an unknown word, or no character allowed.
    """

    def __init__(
        self,
        longest: int = 10_000,
        required: Sequence[str] | None = None,
        damaged: str = "fail",
        pictures: str = "check",
    ) -> None:
        if longest < 1:
            raise ValueError(f"source.rules.longest is {longest}; at least one character must be allowed")
        for key, value, known in (("damaged", damaged, DAMAGED), ("pictures", pictures, PICTURES)):
            if value not in known:
                raise ValueError(f"source.rules.{key} is {value!r}; it must be one of {', '.join(known)}")
        required = REQUIRED[:2] if required is None else required
        if isinstance(required, str) or not set(required) <= set(REQUIRED):
            raise ValueError(f"source.rules.required is {required!r}; it must be a list from {', '.join(REQUIRED)}")
        self.longest, self.required = longest, tuple(required)
        self.damaged, self.pictures = damaged, pictures

    def describe(self) -> dict[str, Any]:
        """The settings, as plain JSON."""
        return {
            "longest": self.longest,
            "required": list(self.required),
            "damaged": self.damaged,
            "pictures": self.pictures,
        }

    def text(self, value: Any, name: str) -> tuple[str, str | None]:
        """A caption as text that can be written, and what is wrong with it; nothing at all is the empty text.

        Args:
            value: text, bytes, None, or anything else that stood in its place.
            name: of the column, for the message.
        """
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "", None
        problem = None
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError as error:
                problem = f"{name} is not UTF-8: {error.reason} at byte {error.start}"
                value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            return "", f"{name} is {type(value).__name__} {value!r:.60}, not text"
        if SURROGATE.search(value):
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            problem = f"{name} has half a character (a lone surrogate)" if "\ufffd" in value else problem
        found = None if value.isprintable() else CONTROL.search(value)
        if found:
            problem = problem or f"{name} has the control character {found.group()!r} at {found.start()}"
        if self.damaged == "repair":
            problem, value = None, CONTROL.sub(" ", value) if found else value
        if len(value) > self.longest:
            problem = f"{name} has {len(value)} characters; source.rules.longest is {self.longest}"
        return value, problem

    def captions(self, values: Sequence[Any], names: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
        """The synthetic captions of a row, those that are missing left out; each value is one or a list of them."""
        texts, problem = [], None
        for value, name in zip(values, names, strict=True):
            for one in value if isinstance(value, (list, tuple)) else (value,):
                text, wrong = self.text(one, name)
                problem = problem or wrong
                if text and not text.isspace():
                    texts.append(text)
        return tuple(texts), problem

    def missing(self, raw: str, synthetic: Sequence[str], image: bytes | None) -> str | None:
        """What a row lacks of what is required, in words."""
        lacking = []
        if "raw" in self.required and (not raw or raw.isspace()):
            lacking.append("raw caption")
        if "synthetic" in self.required and not synthetic:
            lacking.append("synthetic caption")
        if "image" in self.required and not image:
            lacking.append("picture")
        return f"no {' and no '.join(lacking)}" if lacking else None

    def picture(self, image: bytes) -> str | None:
        """What is wrong with an encoded picture, as far as it is looked at."""
        if self.pictures == "carry":
            return None
        from multimodal_zoo.data.pictures import load, open_picture
        from multimodal_zoo.data.skips import UnusableError

        try:
            opened = open_picture(image)
            if self.pictures == "decode":
                load(opened)
        except UnusableError as error:
            return str(error)
        return None

    def row(
        self, values: Mapping[str, Any], columns: Columns, place: str, image_place: str | None = None
    ) -> CaptionRow:
        """The row of one record.

        Args:
            values: what the file holds, by column.
            columns: which column is what.
            place: file and number of the record: the key of a row that has no text to make one from.
            image_place: where the record's picture stands, if it has one of its own: the key where there is no address.
        """
        raw, problem = self.text(values.get(columns.raw) if columns.raw else None, columns.raw or "raw")
        synthetic, wrong = self.captions([_value(values, name) for name in columns.synthetic], columns.synthetic)
        image, unusable = self._image(values.get(columns.image) if columns.image else None)
        address, _ = self.text(values.get(columns.url) if columns.url else None, "url")
        own, _ = self.text(values.get(columns.key) if columns.key else None, "key")
        problem = problem or wrong or self.missing(raw, synthetic, image) or unusable
        first = synthetic[0] if synthetic else ""
        key = own or key_of(raw, first, address or image_place or ("" if raw or first else place))
        extra = {SPELLINGS.get(name, name): values[name] for name in columns.others(list(values))}
        return CaptionRow(key, raw, synthetic, image, extra, problem)

    def _image(self, value: Any) -> tuple[bytes | None, str | None]:
        """A picture as bytes, and what is wrong with it; tables may hold it as a struct of bytes and path."""
        if isinstance(value, Mapping):
            value = value.get("bytes")
        if value is None:
            return None, None
        if not isinstance(value, (bytes, bytearray, memoryview)):
            return None, f"picture is {type(value).__name__} {value!r:.60}, not bytes"
        return bytes(value), self.picture(bytes(value))


def _value(values: Mapping[str, Any], name: str) -> Any:
    """What a record has under a name or its other spelling; one file may have both."""
    if name in values:
        return values[name]
    plain = SPELLINGS.get(name, name)
    return next((value for key, value in values.items() if SPELLINGS.get(key, key) == plain), None)
