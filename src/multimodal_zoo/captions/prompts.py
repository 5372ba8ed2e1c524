"""The prompt of caption fusion: instruction, raw caption, synthetic captions and the cue that the answer follows on."""

from __future__ import annotations

import hashlib
import html
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_zoo.registry import CAPTIONS

logger = logging.getLogger(__name__)

#: Tokens of each of some texts, and a text without its last tokens: an engine's `count` and `cut`.
Count = Callable[[Sequence[str]], list[int]]
Cut = Callable[[str, int], str]

#: What may be done about captions that imitate the prompt's own lines or the marks of conversations.
IMITATIONS = ("keep", "neutralise", "refuse")
#: What a template's line is called if it begins with a few words and a colon, as in `Web caption: {raw}`.
_LABEL = re.compile(r"^[ \t]*([^\n:{}]{1,40}?)[ \t]*:", re.MULTILINE)
_PLACE = re.compile(r"(\{raw\}|\{synthetic\})")
_UNKNOWN_PLACE = re.compile(r"\{(?!raw\}|synthetic\})[A-Za-z_]\w*\}")
#: Marks that tokenizers turn into special tokens: those of SmolLM2, Qwen, LLaMA, Mistral, Gemma.
_MARK = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk)>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>", re.I
)
#: Control characters, lone surrogates and what turns or hides writing; the joiner inside emoji is none of them.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def count_words(texts: Sequence[str]) -> list[int]:
    """Words between white space of each text: the `count` of engines that have no tokens."""
    return [len(text.split()) for text in texts]


def cut_words(text: str, tokens: int) -> str:
    """The text without its last so many words between white space: the `cut` of engines that have no tokens."""
    return " ".join(text.split()[:-tokens]) if tokens > 0 else text


class Filled(NamedTuple):
    """A prompt and what of the captions stands in it.

    Attributes:
        prompt: the whole text.
        raw: the web caption, cleaned and perhaps shortened.
        synthetic: the synthetic captions, likewise; those of which nothing is left are left out.
        cut: tokens that the captions lost.
        fits: whether the prompt keeps to the limit; False: even without captions it is too long.
    """

    prompt: str
    raw: str
    synthetic: tuple[str, ...]
    cut: int = 0
    fits: bool = True


@CAPTIONS.register_module(name="fusion_prompt")
class FusionPrompt:
    """A template with places for the captions of one picture (CapsFusion, arXiv 2310.20550, section 3.2).

    Both places are filled at once, so that a caption with braces, or with the word `{raw}`, goes in as it is. Captions
    lose white space at both ends; everything else about them is an option.

    Args:
        template: text with `{raw}` and `{synthetic}`, or one of the two; each may stand several times.
        limit: most tokens of a filled prompt, as the engine counts them; None shortens nothing.
        unescape_html: whether `&amp;` and the like become characters.
        fold_whitespace: whether newlines, tabs and repeated blanks become one blank and control characters go, so that
            a caption cannot begin a line of its own.
        joiner: what stands between several synthetic captions.
        sha256: what the template must hash to (UTF-8); another one only causes a warning. None takes any.
        imitations: what happens to a caption with a label of the template (`Fused caption:`) or a mark that tokenizers
            make special tokens of (`<|im_end|>`): `keep`, `neutralise` (labels lose their colon, marks go) or `refuse`
            (`imitation` says what it is; whoever asks then rejects the row).

    Raises:
        ValueError: a template without a place or with an unknown one, a limit below 1, an unknown `imitations`.
    """

    def __init__(
        self,
        template: str,
        *,
        limit: int | None = None,
        unescape_html: bool = False,
        fold_whitespace: bool = False,
        joiner: str = " ",
        sha256: str | None = None,
        imitations: str = "keep",
    ) -> None:
        pieces = _PLACE.split(template)
        if len(pieces) == 1:
            raise ValueError("fusion_prompt.template has no place for a caption; write {raw} and {synthetic} into it")
        if unknown := _UNKNOWN_PLACE.search(template):
            raise ValueError(f"fusion_prompt.template has {unknown.group()}; it takes {{raw}} and {{synthetic}}")
        if limit is not None and limit < 1:
            raise ValueError(f"fusion_prompt.limit is {limit}; it must be at least 1, or null for none")
        if imitations not in IMITATIONS:
            raise ValueError(f"fusion_prompt.imitations is {imitations!r}; known: {', '.join(IMITATIONS)}")
        self.template, self.limit, self.joiner, self.imitations = template, limit, joiner, imitations
        self.unescape_html, self.fold_whitespace = unescape_html, fold_whitespace
        self.sha256 = hashlib.sha256(template.encode()).hexdigest()
        if sha256 is not None and self.sha256 != sha256.lower():
            logger.warning(
                "fusion_prompt.template (%d characters) has sha256 %s, but %s is expected: a model that was tuned on "
                "another text answers worse",
                len(template), self.sha256, sha256,
            )  # fmt: skip
        self._pieces, self._prefix = pieces, pieces[0]
        self._labels = _label_pattern(template)

    @property
    def prefix(self) -> str:
        """The text before the first place: the same in all prompts, so that engines compute it once."""
        return self._prefix

    def describe(self) -> dict[str, Any]:
        """What decides the prompts, as plain JSON, for the manifest of a run."""
        names = ("limit", "unescape_html", "fold_whitespace", "joiner", "imitations")
        return {"template_sha256": self.sha256, **{name: getattr(self, name) for name in names}}

    def clean(self, caption: str) -> str:
        """A caption as it goes into the prompt."""
        if self.unescape_html and "&" in caption:
            caption = html.unescape(caption)
        if self.fold_whitespace:
            if not caption.isprintable():
                caption = _CONTROL.sub(" ", caption)
            caption = " ".join(caption.split())
        if self.imitations == "neutralise" and self._suspicious(caption):
            caption = self._labels.sub(r"\1 -", _MARK.sub(" ", caption))
            caption = " ".join(caption.split()) if self.fold_whitespace else caption
        return caption.strip()

    def imitation(self, caption: str) -> str | None:
        """The label or mark in a cleaned caption that looks like the prompt's own; None if there is none."""
        if not self._suspicious(caption):
            return None
        found = self._labels.search(caption) or _MARK.search(caption)
        return None if found is None else found.group()

    @staticmethod
    def _suspicious(caption: str) -> bool:
        """Whether it is worth to search: nearly all captions have none of these characters."""
        return ":" in caption or "<" in caption or "\uff1a" in caption or "[" in caption

    def prepare(self, raw: str, synthetic: str | Sequence[str]) -> Filled:
        """Clean captions in a whole prompt, however long.

        Args:
            raw: the web caption.
            synthetic: one synthetic caption, or several; empty ones are left out.
        """
        several = (synthetic,) if isinstance(synthetic, str) else synthetic
        kept = tuple([text for text in [self.clean(one) for one in several] if text])
        return self._filled(self.clean(raw), kept, 0, True)

    def fill(self, raw: str, synthetic: str | Sequence[str]) -> str:
        """The prompt of one row; see `prepare`."""
        return self.prepare(raw, synthetic).prompt

    def _filled(self, raw: str, synthetic: tuple[str, ...], cut: int, fits: bool) -> Filled:
        joined = synthetic[0] if len(synthetic) == 1 else self.joiner.join(synthetic)
        pieces = self._pieces.copy()
        for place in range(1, len(pieces), 2):
            pieces[place] = raw if pieces[place] == "{raw}" else joined
        return Filled("".join(pieces), raw, synthetic, cut, fits)

    def shorten(self, raw: str, synthetic: str | Sequence[str], count: Count, cut: Cut) -> Filled:
        """The prompt of one row with at most `limit` tokens.

        The end of the raw caption goes first, then that of the last synthetic caption, and so on; a prompt of exactly
        `limit` tokens stays whole (the published script compares with >= and loses the raw caption there). Cut text
        may have another number of tokens than ids were kept, so it is counted again until it fits.

        Args:
            raw: the web caption.
            synthetic: one synthetic caption, or several.
            count: tokens of each text, special tokens left out.
            cut: a text without its last so many tokens.
        """
        filled = self.prepare(raw, synthetic)
        return filled if self.limit is None else self.fitted(filled, count([filled.prompt])[0], count, cut)

    def fitted(self, filled: Filled, total: int, count: Count, cut: Cut) -> Filled:
        """What `shorten` makes of a prompt whose `total` of tokens is known already."""
        if self.limit is None or total <= self.limit:
            return filled
        captions, lost = [filled.raw, *filled.synthetic], 0
        for place in (0, *range(len(captions) - 1, 0, -1)):
            # a caption that stands in several places loses each token several times
            times = self._pieces.count("{synthetic}" if place else "{raw}")
            while times and captions[place] and total > self.limit:
                caption = captions[place]
                has = count([caption])[0]
                taken = min(-((self.limit - total) // times), has)
                # half a character may be left at the end, which decoders write as U+FFFD
                shorter = cut(caption, taken).rstrip("\ufffd").strip() if taken < has else ""
                captions[place] = shorter if len(shorter) < len(caption) else ""
                filled = self._filled(captions[0], tuple(filter(None, captions[1:])), 0, True)
                lost, total = lost + taken, count([filled.prompt])[0]
        return filled._replace(cut=lost, fits=total <= self.limit)


@CAPTIONS.register_module(name="fusion_prompt_file")
def fusion_prompt_file(
    file: str | None,
    *,
    limit: int | None = None,
    unescape_html: bool = False,
    fold_whitespace: bool = False,
    joiner: str = " ",
    sha256: str | None = None,
    imitations: str = "keep",
) -> FusionPrompt:
    """A `FusionPrompt` whose template is a text file of the user's, for models that were tuned on a text of their own.

    Args:
        file: UTF-8 text with `{raw}` and `{synthetic}`; newlines at its end, which editors add, do not count.
        limit: as in `FusionPrompt`, like all that follow.
        unescape_html: whether `&amp;` and the like become characters.
        fold_whitespace: whether white space becomes single blanks.
        joiner: what stands between several synthetic captions.
        sha256: what the template is expected to hash to.
        imitations: what happens to captions that play the prompt.

    Raises:
        ValueError: no file is named, or it is no UTF-8 text, or no template.
        FileNotFoundError: there is no such file.
    """
    if file is None:
        raise ValueError(
            "fusion_prompt.file is null; name a text file with the template that the model was tuned on, {raw} and "
            "{synthetic} where the captions go: fusion_prompt.file=template.txt"
        )
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"fusion_prompt.file: no file {path}")
    try:
        template = path.read_text(encoding="utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"fusion_prompt.file: {path} is no UTF-8 text: {error}") from error
    return FusionPrompt(
        template,
        limit=limit,
        unescape_html=unescape_html,
        fold_whitespace=fold_whitespace,
        joiner=joiner,
        sha256=sha256,
        imitations=imitations,
    )


def _label_pattern(template: str) -> re.Pattern[str]:
    """What finds the template's labels with their colons, in any case and spacing."""
    labels = {r"\s+".join(re.escape(word) for word in label.split()) for label in _LABEL.findall(template)}
    if not labels:
        return re.compile(r"(?!)")
    return re.compile(rf"\b({'|'.join(sorted(labels, key=len, reverse=True))})(?:\s*[:\uff1a])+", re.IGNORECASE)
