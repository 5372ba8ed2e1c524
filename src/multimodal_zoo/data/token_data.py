"""The data module of sequences of tokens, as a part: `token_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.sequence_collate import Samples, SequenceCollate
from multimodal_zoo.data.token_collate import TokenCollate
from multimodal_zoo.data.token_loader import TOKENS, Assembly, CountedRows, PackedRows, PaddedRows, SampleKind
from multimodal_zoo.data.token_sequences import Layout, TokenWeights
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.token_datamodule import TokenData

AnyLayout = TypeVar("AnyLayout")


@DATASETS.register_module(name="padded_batches")
class PaddedBatches:
    """One document in each row, filled up to the longest of the batch.

    Args:
        context_length: most tokens of a document.
        too_long: what happens to longer ones: `error` or `skip`. None is ever cut.
    """

    batches_per_epoch: int | None = None

    def __init__(self, context_length: int, too_long: str = "skip") -> None:
        self.context_length, self.too_long = context_length, too_long

    def assembly(self, rows: int, pad_id: int, kind: SampleKind = TOKENS) -> Assembly:
        """How samples of a kind become a batch of `rows` rows."""
        return PaddedRows(rows, pad_id, kind)


@DATASETS.register_module(name="packed_batches")
class PackedBatches:
    """Several documents in each row of at most `context_length` tokens; each sees itself only, and none is cut.

    Args:
        context_length: most tokens of a row, and of a document.
        batches_per_epoch: batches in what is called an epoch: how many a pass over the data gives is not known before.
        too_long: what happens to longer documents: `error`, `skip`, and what else the data module knows.

    Raises:
        ValueError: an epoch below one batch.
    """

    def __init__(self, context_length: int, batches_per_epoch: int, too_long: str = "skip") -> None:
        if batches_per_epoch < 1:
            raise ValueError(f"data.batching.batches_per_epoch is {batches_per_epoch}; it must be at least 1")
        self.context_length, self.too_long = context_length, too_long
        self.batches_per_epoch: int | None = batches_per_epoch

    def assembly(self, rows: int, pad_id: int, kind: SampleKind = TOKENS) -> Assembly:
        """How samples of a kind become a batch of `rows` rows."""
        return PackedRows(rows, self.context_length, pad_id, kind)


@DATASETS.register_module(name="packed_documents")
class PackedDocuments(PackedBatches):
    """As many documents in each batch as `data.batch_size` says, several in a row where they fit.

    A step sees a published number of documents, and short ones cost no padding beside long ones. The number of rows
    differs from batch to batch; the rest is as in `packed_batches`.
    """

    def assembly(self, rows: int, pad_id: int, kind: SampleKind = TOKENS) -> Assembly:
        """How samples of a kind become a batch of `rows` documents."""
        return CountedRows(rows, self.context_length, pad_id, kind)


def source_layouts(layout: AnyLayout | Mapping[str, AnyLayout], train: Any, validation: Any) -> dict[str, AnyLayout]:
    """The layout of each source of a mixture (or under "train"), and of the validation documents.

    Args:
        layout: one for all, or one for each by name.
        train: reader of training documents, or a mixture of several.
        validation: reader of validation documents, or None.

    Raises:
        ValueError: layouts by name that do not fit the sources' names.
    """
    sources = list(train.sources) if isinstance(train, SourceMixture) else ["train"]
    wanted = [*sources, *(["validation"] if validation is not None else [])]
    if not isinstance(layout, Mapping):
        return dict.fromkeys([*sources, "validation"], layout)
    if set(layout) != set(wanted):
        raise ValueError(
            f"data.layout has {', '.join(layout)}; it needs one layout, or one each for {', '.join(wanted)}"
        )
    return {**{name: layout[name] for name in sources}, "validation": layout.get("validation", layout[sources[0]])}


def sequence_data(
    collates: Mapping[str, SequenceCollate],
    batching: PaddedBatches | PackedBatches,
    train: Any,
    validation: Any,
    batch_size: int,
    order: Order,
    workers: int,
    seed: int,
) -> TokenData:
    """The data module of some collations: what `token_data` and its like share.

    Args:
        collates: for each source of a mixture (or under "train") what makes its samples, and for validation documents.
        batching: how samples become training batches; see there and `token_data` for the rest.
        train: reader of training documents, or a mixture of several.
        validation: reader of validation documents, or None.
        batch_size: rows or documents in a batch, for each rank.
        order: order of the training documents.
        workers: processes that read.
        seed: of order and layouts.

    Raises:
        ValueError: a batch size below 1.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.token_datamodule import Assembled, TokenData

    first, assembled = next(iter(collates.values())), None
    if batching.batches_per_epoch is not None or isinstance(train, SourceMixture):
        assembly = batching.assembly(batch_size, first.processor.ids.pad, first.kind)
        samples = {name: Samples(one) for name, one in collates.items() if name != "validation"}
        assembled = Assembled(samples, assembly, batching.batches_per_epoch)
    return TokenData(train, validation, first, collates["validation"], order, batch_size, workers, seed, assembled)


@DATASETS.register_module(name="token_data")
def token_data(
    processor: Emu3Processor,
    train: Any,
    batch_size: int,
    layout: Layout | Mapping[str, Layout],
    weights: TokenWeights,
    batching: PaddedBatches | PackedBatches,
    order: Order,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> TokenData:
    """A LightningDataModule that gives batches of token sequences.

    All randomness is a pure function of (seed, epoch, number), so that the worker count changes nothing, and a
    checkpoint holds what the trainer took, so that a resumed run sees exactly the batches that an uninterrupted one
    sees. Documents of a mixture are drawn one by one, so that each batch holds of every source.

    Args:
        processor: the model's sizes, tokenizer and prompts.
        train: reader of training documents with codes in place of pictures, or a `source_mixture` of several.
        batch_size: rows in a batch, for each rank.
        layout: how a document becomes a sequence; of a mixture one for all sources, or one for each by name and, where
            there is a validation reader, `validation`.
        weights: how much each kind of token counts.
        batching: padded or packed rows, or packed documents. Validation is always padded.
        order: order of the training documents; readers of shards have their own.
        validation: reader of documents seen in order, numbered or streamed.
        workers: processes that read; 0 reads in this one.
        seed: of order, captions and layouts.

    Raises:
        ValueError: a batch size below 1, or layouts that do not fit.
    """
    layouts = source_layouts(layout, train, validation)
    rest = (weights, batching.context_length, batching.too_long)
    collates = {name: TokenCollate(processor, one, *rest) for name, one in layouts.items()}
    return sequence_data(collates, batching, train, validation, batch_size, order, workers, seed)
