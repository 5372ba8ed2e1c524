"""The data module of words and visual embeddings, as a part: `visual_token_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multimodal_zoo.data.conversation_layouts import ConversationLayout
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.token_data import PackedBatches, PaddedBatches, sequence_data, source_layouts
from multimodal_zoo.data.visual_collate import VisualCollate
from multimodal_zoo.data.visual_sequences import LearntElements
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.token_datamodule import TokenData


@DATASETS.register_module(name="visual_token_data")
def visual_token_data(
    processor: EmuProcessor,
    train: Any,
    batch_size: int,
    layout: ConversationLayout | Mapping[str, ConversationLayout],
    learn: LearntElements,
    batching: PaddedBatches | PackedBatches,
    order: Order,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> TokenData:
    """A LightningDataModule that gives batches of words and visual embeddings (`VisualTokenBatch`).

    Order, resuming and mixtures are those of `token_data`. A sample that cannot be used is left out, counted and named.

    Args:
        processor: the model's pictures, tokenizer and template.
        train: reader of training documents, or a `source_mixture` of several.
        batch_size: rows in a batch, for each rank.
        layout: what of a document is told, and in which order; of a mixture one for all sources, or one for each by
            name and, where there is a validation reader, `validation`.
        learn: what of a sequence is learnt.
        batching: padded or packed rows, and what happens to documents beyond the context (`error`, `skip`, `cut`).
            Validation is always padded.
        order: order of the training documents; readers of shards have their own.
        validation: reader of documents seen in order, numbered or streamed.
        workers: processes that read; 0 reads in this one.
        seed: of order and layouts.

    Raises:
        ValueError: a batch size below 1, or layouts that do not fit.
    """
    layouts = source_layouts(layout, train, validation)
    rest = (learn, batching.context_length, batching.too_long)
    collates = {name: VisualCollate(processor, one, *rest) for name, one in layouts.items()}
    return sequence_data(collates, batching, train, validation, batch_size, order, workers, seed)
