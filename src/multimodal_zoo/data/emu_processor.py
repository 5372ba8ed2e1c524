"""What must match the weights of Emu and Emu2: the picture transform, the tokenizer, and how documents are written."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.conversation_templates import Mark, Piece, Shown
from multimodal_zoo.data.conversation_turns import UnfitDocumentError, with_answer
from multimodal_zoo.data.documents import Document, Picture, Seen
from multimodal_zoo.data.emu_messages import VIDEO, Conversation, conversation_of
from multimodal_zoo.data.emu_templates import (
    ASSISTANT,
    FRAME,
    IMAGE,
    IMAGE_BEGIN,
    IMAGE_END,
    USER,
    EmuTemplate,
    emu_template,
)
from multimodal_zoo.data.picture_sequences import Row, row_of
from multimodal_zoo.data.pictures import PathLike
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.text_processor import WordProcessor
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.data.visual_sequences import ALL, LearntElements, VisualSample, opened, stripped, tensors_of
from multimodal_zoo.data.visual_store import VisualStore, stored_sample
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.registry import DATASETS
from multimodal_zoo.tokenizers.words import WordTokenizer


class EmuIds(NamedTuple):
    """The ids that frame words and pictures.

    Attributes:
        bos: begins a sequence; None where sequences have no begin.
        eos: ends a document or an answer.
        pad: what collation fills with.
        image_begin: opens a picture.
        image_end: closes it.
        image: stands at visual embeddings of pictures.
        frame: stands at those of frames; that of pictures where frames are pictures.
        video: opens a clip; None where frames are pictures.
        user: names who asks; None for models without roles.
        assistant: names who answers.
    """

    bos: int | None
    eos: int
    pad: int
    image_begin: int
    image_end: int
    image: int
    frame: int
    video: int | None
    user: int | None
    assistant: int | None


@DATASETS.register_module(name="emu_processor")
class EmuProcessor(WordProcessor):
    """Documents of words, pictures and clips to sequences, and ids back to texts (Emu, Emu2).

    A picture is `[IMG]`, a place for each visual embedding, `[/IMG]`. Nothing is read from the tokenizer before a text
    is: a model can be built without its files.

    Args:
        images: from pictures to pixels; None for a model that reads words only.
        texts: the tokenizer, with the tokens of pictures (`added_tokens`).
        image_tokens: visual embeddings of a picture: the connector's `queries`, or a square number that it pools to.
        frame_tokens: of a frame of a clip, which then has places of its own behind `[VIDEO]` (Emu2); None: frames are
            pictures (Emu).
        template: how documents are written down; a name of `emu_templates.TEMPLATES`.
        closing: whether the embedding of `[/IMG]` is the last target of a picture's regression (Emu; Emu2's visual
            embeddings have another width than words).
        context_length: most tokens of a prompt, and of the picture that it asks for; None for no limit.
        store: visual embeddings computed before (`visual_store`), in place of the pictures of documents to learn from;
            None encodes these anew.

    Attributes:
        transform: from pictures to pixels.
        tokenizer: the tokenizer.

    Raises:
        KeyError: no such template, with the nearest ones.
        ValueError: a context below two tokens, or pictures without an embedding.
    """

    def __init__(
        self,
        images: ImageTransform | None,
        texts: WordTokenizer,
        image_tokens: int,
        frame_tokens: int | None = None,
        template: str = "plain",
        closing: bool = False,
        context_length: int | None = None,
        store: VisualStore | None = None,
    ) -> None:
        if context_length is not None and context_length < 2:
            raise ValueError(f"processor.context_length is {context_length}; expected at least 2 tokens, or null")
        if image_tokens < 1 or (frame_tokens is not None and frame_tokens < 1):
            raise ValueError(
                f"processor.image_tokens is {image_tokens} and frame_tokens {frame_tokens}; expected at least 1"
            )
        self.transform, self.tokenizer, self.context_length = images, texts, context_length
        self.image_tokens, self.frame_tokens, self.closing = image_tokens, frame_tokens, closing
        self.template: EmuTemplate = emu_template(template)
        self.store = store

    def written_as(self, template: str) -> EmuProcessor:
        """The same processor with another template.

        Raises:
            KeyError: no such template, with the nearest ones.
        """
        other = copy.copy(self)
        other.template = emu_template(template)
        return other

    @cached_property
    def ids(self) -> EmuIds:
        """The ids that frame words and pictures.

        Raises:
            ValueError: the tokenizer lacks one of a picture's, or an end.
        """
        own, eos = self.tokenizer, self.tokenizer.eos_id
        if eos is None:
            raise ValueError("processor.texts has no token that ends a text; choose one that has (its tokenizer.eos)")
        begin, end, image = (self._token(word) for word in (IMAGE_BEGIN, IMAGE_END, IMAGE))
        clips = self.frame_tokens is not None
        frame, video = (self._token(FRAME), self._token(VIDEO)) if clips else (image, None)
        roles = (own.special_id(USER), own.special_id(ASSISTANT))
        return EmuIds(own.bos_id, eos, own.pad_id, begin, end, image, frame, video, *roles)

    @cached_property
    def _end(self) -> str:
        return next(word for word, number in self.tokenizer.special_ids.items() if number == self.ids.eos)

    def _token(self, word: str) -> int:
        number = self.tokenizer.special_id(word)
        if number is None:
            known = ", ".join(list(self.tokenizer.special_ids)[:24])
            raise ValueError(
                f"{word!r} is no special token of processor.texts: add it to processor.texts.added; there are {known}"
            )
        return number

    def images(self, pictures: Sequence[Picture | PathLike | bytes]) -> Tensor:
        """Pictures as the image encoder reads them, float (pictures, 3, side, side).

        Raises:
            ValueError: the model reads words only.
            UnusableError: a picture that cannot be read.
        """
        if self.transform is None:
            raise ValueError(f"{len(pictures)} pictures for a model that reads words only: set processor.images")
        return self.transform(pictures)

    def prompt(self, document: Document, special: bool = True) -> VisualSample:
        """A document up to where the model goes on; a last text of the assistant is the beginning of its answer.

        Args:
            document: texts, pictures and clips; texts of the role `token` are special tokens by their strings.
            special: whether strings of special tokens in other texts become these.

        Raises:
            ValueError: an unknown role or token, `<image>` in a text, or more tokens than the context has.
            UnusableError: a picture that cannot be read.
        """
        return self._fitting(self._prompt(document, special, []), 0)

    def drawing_prompt(self, document: Document, special: bool = True) -> VisualSample:
        """A document and the token that opens a picture; see `prompt`."""
        return self._fitting(self._prompt(document, special, [Mark(IMAGE_BEGIN)]), self.image_tokens)

    def sample(
        self, document: Document, random: Random, special: bool = True, learn: LearntElements = ALL
    ) -> VisualSample:
        """A document to learn from. In chats, of texts without any role the last one is the answer.

        Args:
            document: as for `prompt`.
            random: of this sample; nothing is drawn.
            special: as for `prompt`.
            learn: what of it is learnt.

        Raises:
            UnusableError: no answer in a chat, nothing to learn, or what makes a prompt fail.
        """
        del random
        try:
            told = self._told(with_answer(document) if self.template.roles else document, True)
            if self.template.roles and (not told.messages or told.messages[-1].role != "assistant"):
                raise UnfitDocumentError("question without an answer", document, "the last text is the user's")
            sample = self._sample(told, self.template.pieces(told, self._end, True), special, document.key, learn)
        except UnfitDocumentError as error:
            raise UnusableError(error.reason, f"{document.key} ({error.detail})") from error
        except UnusableError as error:
            raise UnusableError(error.reason, f"{document.key} ({error.key})") from error
        if not sample.weights.any() and not sample.regression.any():
            raise UnusableError("nothing to learn", document.key)
        return sample if self.store is None else stored_sample(sample, self.store)

    def counted(self, document: Document) -> CountedImages | None:
        """The pictures and frames of a document as the model reads them; None where there is none.

        Raises:
            UnusableError: a picture that cannot be read.
        """
        told = self._told(document, False)
        found = self._images(told.pictures, self._sizes(told), document.key)
        return None if isinstance(found, Tensor) else found

    def _sizes(self, told: Conversation) -> tuple[int, ...]:
        frame = self.image_tokens if self.frame_tokens is None else self.frame_tokens
        return tuple(frame if of_clip else self.image_tokens for of_clip in told.frames)

    def _told(self, document: Document, lesson: bool) -> Conversation:
        return conversation_of(document, lesson, self.frame_tokens is not None)

    def _prompt(self, document: Document, special: bool, behind: list[Piece]) -> VisualSample:
        told = self._told(document, False)
        pieces = [*self.template.pieces(told, self._end, False), *behind]
        sample = self._sample(told, pieces, special, document.key, ALL)
        return sample._replace(weights=sample.weights * 0, regression=sample.regression * 0)

    def _sample(
        self, told: Conversation, pieces: Sequence[Piece], special: bool, key: str, learn: LearntElements
    ) -> VisualSample:
        ids = self.ids
        row, counts = self._row(told, pieces, special, key)
        unlearnt = {ids.pad, ids.image, ids.frame, ids.image_end, *([] if learn.openings else [ids.image_begin])}
        chosen = learn.regressed([piece.number for piece in pieces if isinstance(piece, Shown) and piece.learnt])
        places, weights, vision, regression = tensors_of(row, unlearnt, chosen, self.closing)
        if not learn.words:
            weights = weights * (places == ids.image_begin)
        images = self._images(told.pictures, counts, key)
        seen = images if isinstance(images, Tensor) else None
        shown = images if isinstance(images, CountedImages) else None
        return VisualSample(places, weights, vision, regression, shown, key, seen, () if seen is None else counts)

    def _images(
        self, pictures: Sequence[Picture | Seen], counts: Sequence[int], key: str
    ) -> CountedImages | Tensor | None:
        """Pixels of all pictures, or visual embeddings of all."""
        seen = [one for one in pictures if isinstance(one, Seen)]
        if not seen:
            plain = [one for one in pictures if not isinstance(one, Seen)]
            return CountedImages(self.images(plain), tuple(counts)) if plain else None
        if len(seen) < len(pictures):
            raise ValueError(f"document {key!r}: a model saw {len(seen)} of its {len(pictures)} pictures; all or none")
        if (found := [len(one.visual) for one in seen]) != list(counts):
            raise ValueError(
                f"document {key!r}: its pictures have {found} embeddings, processor.image_tokens and frame_tokens ask "
                f"for {list(counts)}"
            )
        return torch.cat([one.visual for one in seen])

    def _row(self, told: Conversation, pieces: Sequence[Piece], special: bool, key: str) -> tuple[Row, tuple[int, ...]]:
        """The sequence with ids at places of embeddings too, and how many embeddings each picture has."""
        ids, clips = self.ids, self.frame_tokens is not None
        for word in {piece.word for piece in pieces if isinstance(piece, Mark)}:
            self._token(word)
        sizes = self._sizes(told)
        around = opened(pieces, IMAGE_BEGIN, IMAGE_END)
        tidy = stripped(around) if getattr(self.tokenizer, "strip", False) else around
        row = row_of(tidy, self.tokenizer, sizes, special)
        self._no_placeholders(row, key)
        places = [ids.frame if clips and told.frames[number] else ids.image for number in range(len(sizes))]
        full = [places[number] if number >= 0 else one for one, number in zip(row.ids, row.picture, strict=True)]
        return row._replace(ids=full), sizes

    def _no_placeholders(self, row: Row, key: str) -> None:
        known = (self.ids.image, self.ids.frame)
        strange = [one for one, number in zip(row.ids, row.picture, strict=True) if one in known and number < 0]
        if strange:
            raise UnfitDocumentError(
                "more placeholders than pictures",
                Document([], {"key": key}),
                f"its texts hold {IMAGE} or {FRAME} {len(strange)} times, which stand for embeddings of a picture",
            )

    def _fitting(self, sample: VisualSample, asked: int) -> VisualSample:
        limit, count = self.context_length, len(sample.ids) + asked
        if limit is not None and count > limit:
            pictures = int(sample.vision.sum()) + asked
            raise ValueError(
                f"document {sample.key!r} has {count} tokens, {pictures} of them of pictures; the context has {limit} "
                "(processor.context_length): take fewer pictures, less of each (processor.image_tokens) or less text"
            )
        return sample
