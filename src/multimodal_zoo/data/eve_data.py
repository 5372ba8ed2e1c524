"""The data module of conversations about pictures, as a part: `picture_token_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multimodal_zoo.data.conversation_layouts import ConversationLayout
from multimodal_zoo.data.eve_collate import PictureCollate
from multimodal_zoo.data.eve_processor import EveProcessor
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.token_data import PackedBatches, PaddedBatches, sequence_data, source_layouts
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.token_datamodule import TokenData


@DATASETS.register_module(name="picture_token_data")
def picture_token_data(
    processor: EveProcessor,
    train: Any,
    batch_size: int,
    layout: ConversationLayout | Mapping[str, ConversationLayout],
    batching: PaddedBatches | PackedBatches,
    order: Order,
    teacher: bool = False,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> TokenData:
    """A LightningDataModule that gives batches of conversations about pictures (`PictureTokenBatch`).

    Order, resuming and mixtures are those of `token_data`. A sample that cannot be used is left out, counted and named.

    Args:
        processor: the model's pictures, tokenizer and template.
        train: reader of training documents, or a `source_mixture` of several.
        batch_size: rows in a batch, for each rank.
        layout: which conversation a document is; of a mixture one for all sources, or one for each by name and, where
            there is a validation reader, `validation`.
        batching: padded or packed rows, and what happens to documents beyond the context (`error`, `skip`, `cut`, and
            `cut_ids` of padded rows: the published count). Validation is always padded.
        order: order of the training documents; readers of shards have their own.
        teacher: whether a frozen teacher's view of each picture is made too.
        validation: reader of documents seen in order, numbered or streamed.
        workers: processes that read; 0 reads in this one.
        seed: of order and layouts.

    Raises:
        ValueError: a batch size below 1, layouts that do not fit, or packed rows with the published count.
    """
    if batching.batches_per_epoch is not None and batching.too_long == "cut_ids":
        raise ValueError("data.batching.too_long=cut_ids gives rows longer than the context; packed_batches needs cut")
    layouts = source_layouts(layout, train, validation)
    rest = (batching.context_length, batching.too_long, teacher)
    collates = {name: PictureCollate(processor, one, *rest) for name, one in layouts.items()}
    return sequence_data(collates, batching, train, validation, batch_size, order, workers, seed)
