"""What must match EVE's weights: the pictures' sizes, the tokenizer, and how conversations are written down."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from random import Random

import torch
from torch import Tensor

from multimodal_zoo.data.conversation_templates import Turn, template_named
from multimodal_zoo.data.conversation_turns import UnfitDocumentError, lesson_of, question_of
from multimodal_zoo.data.documents import Document, Picture
from multimodal_zoo.data.eve_images import EveImages
from multimodal_zoo.data.picture_sequences import PictureSample, row_of, weights_of
from multimodal_zoo.data.pictures import AnyPicture, open_picture
from multimodal_zoo.data.size_rule import UnfitPictureError
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.text_processor import WordProcessor
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.nn.patch_cells import PatchCells, joined
from multimodal_zoo.registry import DATASETS
from multimodal_zoo.tokenizers.words import WordIds, WordTokenizer


@DATASETS.register_module(name="eve_processor")
class EveProcessor(WordProcessor):
    """Conversations about pictures to sequences, and answers back to texts.

    Nothing is read from the tokenizer before a text is: a model can be built without its files.

    Args:
        images: the image transform.
        texts: the tokenizer.
        template: how conversations are written down; a name of `conversation_templates.TEMPLATES`.
        context_length: most tokens of a prompt, pictures' counted; None for no limit.

    Attributes:
        transform: the image transform.
        tokenizer: the tokenizer.
        template: the template.

    Raises:
        KeyError: no such template, with the nearest ones.
        ValueError: a context below two tokens.
    """

    def __init__(
        self, images: EveImages, texts: WordTokenizer, template: str, context_length: int | None = None
    ) -> None:
        if context_length is not None and context_length < 2:
            raise ValueError(f"processor.context_length is {context_length}; expected at least 2 tokens, or null")
        self.transform, self.tokenizer, self.context_length = images, texts, context_length
        self.template = template_named(template)

    @cached_property
    def ids(self) -> WordIds:
        """The ids that frame texts; the end is what the template puts behind an answer."""
        tokenizer, end = self.tokenizer, self.template.end
        if not self.template.special:  # a word: what it is behind another one
            return WordIds(tokenizer.bos_id, self.text_ids(f"a{end}")[-1], tokenizer.pad_id)
        found = tokenizer.special_id(end)
        if found is None:
            raise ValueError(f"processor.template ends answers with {end!r}, no special token of processor.texts")
        return WordIds(tokenizer.bos_id, found, tokenizer.pad_id)

    def images(self, pictures: Sequence[AnyPicture]) -> list[PatchCells]:
        """Each picture cut into cells, by the rule of inference."""
        return [self.transform.cells(picture) for picture in pictures]

    def prompt(self, document: Document, special: bool = True) -> PictureSample:
        """A document up to where the answer begins; texts without a role are the user's.

        Args:
            document: pictures, and texts of user and assistant in turn.
            special: whether strings of special tokens in texts become these; False for words of people who are not
                trusted.

        Raises:
            ValueError: no conversation, a picture that the rule refuses, or more tokens than the context has.
            UnusableError: a picture that cannot be read.
        """
        turns, pictures = question_of(document)
        cells = [self.transform.cells(picture) for picture in pictures]
        return self._fitting(self._sample(turns, cells, special, document.key))

    def sample(self, document: Document, random: Random, teacher: bool = False, special: bool = True) -> PictureSample:
        """A document to learn from. Of texts without any role the last one is the answer.

        Args:
            document: pictures, and texts of user and assistant in turn.
            random: of this sample; nothing is drawn.
            teacher: whether what a teacher sees of the pictures is made too.
            special: as in `prompt`.

        Raises:
            UnusableError: no conversation, an empty answer or none, or a picture that cannot be read or does not fit.
        """
        del random
        try:
            turns, pictures = lesson_of(document)
            cells = [self.transform.cells(picture, training=True) for picture in pictures]
            seen = [self.transform.teacher(picture) for picture in pictures] if teacher else []
        except UnfitDocumentError as error:
            raise UnusableError(error.reason, f"{document.key} ({error.detail})") from error
        except UnfitPictureError as error:
            raise UnusableError("unfit picture", f"{document.key} ({error})") from error
        except UnusableError as error:
            raise UnusableError(error.reason, f"{document.key} ({error.key})") from error
        return _seen(self._sample(turns, cells, special, document.key), seen)

    def tokens(self, document: Document, training: bool = False) -> list[int]:
        """How many tokens each picture of a document takes, without resizing one."""
        sizes = [open_picture(segment) for segment in _pictures(document)]
        return [self.transform.preview(image.height, image.width, training).tokens for image in sizes]

    def _sample(self, turns: Sequence[Turn], cells: Sequence[PatchCells], special: bool, key: str) -> PictureSample:
        pieces = self.template.pieces(turns)
        row = row_of(pieces, self.tokenizer, [one.tokens[0] for one in cells], special)
        vision = torch.tensor(row.picture, dtype=torch.long) >= 0
        ids = torch.tensor(row.ids, dtype=torch.long)
        return PictureSample(ids, weights_of(row), vision, joined(cells) if cells else None, None, [], key)

    def _fitting(self, sample: PictureSample) -> PictureSample:
        limit, count = self.context_length, len(sample.ids)
        if limit is not None and count > limit:
            pictures = int(sample.vision.sum())
            raise ValueError(
                f"document {sample.key!r} has {count} tokens, {pictures} of them of pictures; the context has {limit} "
                "(processor.context_length): take smaller pictures (processor.images) or a shorter text"
            )
        return sample


def _pictures(document: Document) -> list[Picture]:
    return question_of(document)[1]


def _seen(sample: PictureSample, seen: Sequence[tuple[Tensor, Box]]) -> PictureSample:
    if not seen:
        return sample
    return sample._replace(teacher=torch.stack([pixels for pixels, _ in seen]), boxes=[box for _, box in seen])
