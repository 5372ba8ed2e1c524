"""Pairs of drawings of one prompt, one of them preferred: a JSON-lines table beside arrays of codes.

A line holds `key`, `text`, `chosen` and `rejected`, paths of `.npy` files of codes (rows, columns) relative to the
table, and, where they were computed before, `reference`: the log-probabilities of both under the reference model. The
sampled tokens themselves are kept, since encoding a drawing anew gives others (arXiv 2409.18869, section 2.5).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.data.documents import Codes, Document, Text, code_array
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.sequence_collate import SequenceCollate
from multimodal_zoo.data.skips import Skips, UnusableError, inside, usable
from multimodal_zoo.data.token_batches import padded_batch
from multimodal_zoo.data.token_collate import TokenCollate
from multimodal_zoo.data.token_data import PaddedBatches
from multimodal_zoo.data.token_loader import TOKENS
from multimodal_zoo.data.token_sequences import Layout, TokenSample, TokenWeights
from multimodal_zoo.files import atomic_file, parsed, write_text
from multimodal_zoo.objectives.batch import PreferenceBatch
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.token_datamodule import TokenData

#: What every line of a table has.
REQUIRED = ("key", "text", "chosen", "rejected")


@DATASETS.register_module(name="preference_pairs")
class PreferencePairs:
    """Documents of a text and the codes of the preferred drawing; `meta` has `rejected` and perhaps `reference`.

    Args:
        table: the JSON-lines file.

    Raises:
        FileNotFoundError: no such table.
        ValueError: no line, or one that is no object with `REQUIRED`.
    """

    def __init__(self, table: str) -> None:
        self.path = Path(table).expanduser()
        self.folder = self.path.parent.resolve()
        if not self.path.is_file():
            raise FileNotFoundError(f"data.train.table: no file {table}; it has one JSON object a line")
        self.lines: list[dict[str, Any]] = []
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            if line.strip():
                self.lines.append(_line(line, f"{table}, line {number}"))
        if not self.lines:
            raise ValueError(f"data.train.table: {table} has no line")
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Document]:
        return usable(self)

    def __getitem__(self, index: int) -> Document:
        """One pair.

        Raises:
            UnusableError: codes that are missing or of another form.
        """
        line = self.lines[index]
        chosen, rejected = (self._codes(line, side) for side in ("chosen", "rejected"))
        meta = {"key": line["key"], "rejected": rejected, "reference": line.get("reference")}
        return Document([Text(line["text"]), Codes(chosen)], meta)

    def _codes(self, line: dict[str, Any], side: str) -> np.ndarray:
        path, key = inside(self.folder, line[side], f"{line['key']}: {line[side]}"), str(line["key"])
        try:
            codes = np.load(path, allow_pickle=False)
        except Exception as error:  # damaged bytes raise nearly anything
            raise UnusableError(f"unreadable codes ({side})", key) from error
        try:
            return code_array(codes, 2)
        except ValueError as error:
            raise UnusableError(f"codes of another form ({side})", key) from error


def _line(text: bytes, place: str) -> dict[str, Any]:
    try:
        found = parsed(text)
    except ValueError as error:
        raise ValueError(f"{place}: no valid JSON ({error})") from error
    if not isinstance(found, dict) or not found.keys() >= set(REQUIRED):
        raise ValueError(f"{place}: expected an object with {', '.join(REQUIRED)}")
    if strange := [name for name in ("text", "chosen", "rejected") if not isinstance(found[name], str)]:
        raise ValueError(f"{place}: {strange[0]} is {found[strange[0]]!r:.60}; expected a text")
    reference = found.get("reference")
    numbers = isinstance(reference, list) and all(isinstance(one, (int, float)) for one in reference)
    if reference is not None and not (numbers and len(reference) == 2):
        raise ValueError(f"{place}: reference is {reference!r}; expected two numbers, of chosen and rejected")
    return found


def best_and_worst(drawings: Sequence[np.ndarray], votes: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """The drawings of one prompt that the voters, on average, like most and least (arXiv 2409.18869, section 2.5).

    Args:
        drawings: codes, eight to ten of them in the paper.
        votes: of each drawing, a score of every voter; three in the paper.

    Raises:
        ValueError: fewer than two drawings, another number of votes, or all equally liked.
    """
    means = [float(np.mean(vote)) for vote in votes]
    if len(drawings) < 2 or len(means) != len(drawings):
        raise ValueError(f"{len(drawings)} drawings and votes for {len(means)}: give at least 2, and votes for each")
    best, worst = int(np.argmax(means)), int(np.argmin(means))
    if means[best] == means[worst]:
        raise ValueError(f"all {len(means)} drawings have the score {means[0]}: none is preferred")
    return drawings[best], drawings[worst]


def write_preferences(
    folder: str | Path,
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    keys: Sequence[str] | None = None,
    reference: Sequence[Sequence[float]] | None = None,
) -> Path:
    """Write pairs in the layout that `preference_pairs` reads; the table appears when all arrays are there.

    Args:
        folder: receives `pairs.jsonl` and `codes/`.
        pairs: text, codes of the preferred and of the other drawing.
        keys: names of the pairs; None numbers them.
        reference: log-probabilities of both drawings under the reference model, for training without it.

    Returns:
        the table's path.
    """
    folder = Path(folder)
    (folder / "codes").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (text, chosen, rejected) in enumerate(pairs):
        line: dict[str, Any] = {"key": f"{number:08d}" if keys is None else keys[number], "text": text}
        for side, codes in (("chosen", chosen), ("rejected", rejected)):
            line[side] = f"codes/{number:08d}_{side}.npy"
            with atomic_file(folder / line[side]) as path, path.open("wb") as file:
                np.save(file, np.asarray(codes, dtype=np.int32), allow_pickle=False)
        if reference is not None:
            line["reference"] = [float(value) for value in reference[number]]
        lines.append(json.dumps(line, ensure_ascii=False))
    write_text(folder / "pairs.jsonl", "".join(f"{line}\n" for line in lines))
    return folder / "pairs.jsonl"


class PairSample(NamedTuple):
    """Both sequences of a pair.

    Attributes:
        chosen: the preferred one.
        rejected: the other.
        reference: log-probabilities of both under the reference model, or None.
    """

    chosen: TokenSample
    rejected: TokenSample
    reference: Sequence[float] | None


def other_side(document: Document) -> Document:
    """A pair's document with the drawing that is not preferred.

    Raises:
        ValueError: a document without one.
    """
    if "rejected" not in document.meta:
        raise ValueError(f"document {document.key!r} has no rejected drawing; read pairs with preference_pairs")
    rejected = Codes(document.meta["rejected"])
    return Document([rejected if isinstance(one, Codes) else one for one in document.segments], document.meta)


class PreferenceCollate(SequenceCollate):
    """As `TokenCollate`, for documents of `preference_pairs`: both drawings behind the same prompt."""

    kind = TOKENS

    def __init__(
        self, processor: Emu3Processor, layout: Layout, weights: TokenWeights, context_length: int, too_long: str
    ) -> None:
        super().__init__(processor, context_length, too_long)
        self.side = TokenCollate(processor, layout, weights, context_length, too_long)

    def sample(self, document: Document, random: Random) -> PairSample:
        """The sample of one pair.

        Raises:
            ValueError: known log-probabilities behind a text that the layout may leave out.
            UnusableError: a sequence that is too long, where it is left out.
        """
        known = document.meta.get("reference")
        if known is not None and getattr(self.side.layout, "null_prompt_probability", None):
            raise ValueError(
                f"pair {document.key!r} has reference log-probabilities, which hold behind its own text: set "
                "data.layout.null_prompt_probability=0"
            )
        state = random.getstate()
        chosen = self.side.text_row(document, random)
        random.setstate(state)  # the same choices for both
        return PairSample(chosen, self.side.text_row(other_side(document), random), known)

    def text_row(self, document: Document, random: Random) -> PairSample:
        """See `sample`, whose sides are checked one by one."""
        return self.sample(document, random)

    def batch(self, pixels: Tensor, rows: Sequence[PairSample], generator: torch.Generator) -> PreferenceBatch:
        """The batch of some pairs.

        Raises:
            ValueError: some pairs have reference log-probabilities and some do not.
        """
        known = [row.reference for row in rows if row.reference is not None]
        if known and len(known) != len(rows):
            raise ValueError(f"{len(known)} of {len(rows)} pairs have `reference`; give it for all or for none")
        pad = self.processor.ids.pad
        chosen = padded_batch([row.chosen for row in rows], pad)
        rejected = padded_batch([row.rejected for row in rows], pad)
        return PreferenceBatch(chosen, rejected, torch.tensor(known, dtype=torch.float64) if known else None)


@DATASETS.register_module(name="preference_data")
def preference_data(
    processor: Emu3Processor,
    train: Any,
    batch_size: int,
    layout: Layout,
    weights: TokenWeights,
    order: Order,
    batching: PaddedBatches,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> TokenData:
    """A LightningDataModule of preference pairs.

    Args:
        processor: the model's sizes, tokenizer and prompts.
        train: numbered reader (`preference_pairs`).
        batch_size: pairs in a batch, for each rank.
        layout: how a text and a drawing become a sequence.
        weights: tokens of weight above 0 are compared.
        order: order of the pairs.
        batching: the longest sequence, and what happens to longer ones.
        validation: reader of pairs seen in order.
        workers: processes that read; 0 reads in this one.
        seed: of order and layout.

    Raises:
        ValueError: a batch size below 1, or packed rows.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.token_datamodule import TokenData

    if not isinstance(batching, PaddedBatches):
        raise ValueError("data.batching packs rows; pairs are compared row by row: take padded_batches")
    collate = PreferenceCollate(processor, layout, weights, batching.context_length, batching.too_long)
    return TokenData(train, validation, collate, collate, order, batch_size, workers, seed)
