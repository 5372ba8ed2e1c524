"""Answers in words to questions about pictures, or to texts alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from multimodal_zoo.data.documents import Document
from multimodal_zoo.generation.beams import Beams, beam_search
from multimodal_zoo.generation.loop import Decoder, Progress, generate
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.speaking import document_of, evaluating, parts_of, seeds_of
from multimodal_zoo.inference.writers import writer_of

#: Most tokens of an answer in the published scripts (baaivision/Emu3, multimodal_understanding.py; baaivision/EVE).
MAX_NEW_TOKENS = 1024


def answer(
    model: nn.Module,
    documents: str | Document | Sequence[str | Document],
    *,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    special: bool = True,
    reader: Decoder | None = None,
    beams: Beams | None = None,
    on_token: Callable[[Progress], None] | None = None,
) -> list[str]:
    """Answer questions, each in the layout of the model's processor; an answer does not depend on its batch.

        model = zoo.create("emu3_tiny")
        (text,) = answer(model, Document([Image(picture), Text("What is this?")]))

    Args:
        model: with its processor: an Emu3, whose visual tokenizer is needed for pictures that are no codes yet; an Eve;
            an Emu.
        documents: a text each, and pictures, clips or codes before it where it asks about any; or texts alone. For an
            Eve or Emu also conversations, texts by turns of the roles `user` and `assistant`, the last one a question.
        sampling: how tokens are chosen; None takes the likeliest, as published.
        max_new_tokens: most tokens of an answer; None for the published 1,024, or fewer where the decoder has not so
            many positions left.
        seed: of the first answer, the others have those behind it; or one for each. Only used where tokens are drawn.
        batch_size: answers written at a time; None for all at once.
        special: whether strings of special tokens in texts become these, as published; if not, they stay text.
        reader: reads in place of the model's decoder: one `Remembering(model.decoder)` for several questions does not
            read again what they have in common.
        beams: search so many answers side by side, as Emu was measured; nothing is drawn then.
        on_token: called after every token of a batch.

    Returns:
        the answers, without special and visual tokens.

    Raises:
        TypeError: a model that does not write.
        ValueError: a document with several texts, pictures without a visual tokenizer, more tokens than positions.
    """
    writer = writer_of(model, "answer")
    given = [documents] if isinstance(documents, (str, Document)) else documents
    asked = [document_of(one) for one in given]
    seeds, sampling, answers = seeds_of(seed, len(asked)), sampling or Sampling(greedy=True), []
    with evaluating(model) as device:
        for chosen in parts_of(len(asked), batch_size):
            prompts = writer.prompts(asked[chosen], special, device)
            prompts = prompts if reader is None else prompts.aligned()  # what they have in common is read once
            room = writer.model.decoder.max_positions - prompts.inputs.shape[1] + 1  # the last token is not read
            steps = max(1, min(MAX_NEW_TOKENS, room)) if max_new_tokens is None else max_new_tokens
            read, policy = reader or writer.model.decoder, writer.steps(steps)
            if beams is None:
                done = generate(read, prompts, policy, sampling=sampling, seeds=seeds[chosen], on_token=on_token)
            else:
                start = writer.processor.ids.bos or 0
                done = beam_search(read, prompts, policy, beams, start=start, on_token=on_token)
            for row, length in zip(done.ids, done.lengths, strict=True):
                answers.append(writer.decode(row[: int(length)].tolist()))
    return answers
