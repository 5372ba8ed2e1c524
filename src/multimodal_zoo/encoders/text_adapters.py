"""Text models of transformers in a text-encoder slot (BERT, RoBERTa, ...).

Nothing is downloaded: weights are random, or come from a local folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.encoders.adapters import folder_config, without_folder
from multimodal_zoo.encoders.outputs import TextFeatures
from multimodal_zoo.encoders.text_transformer import check_ids
from multimodal_zoo.registry import ENCODERS


def text_lengths(ids: Tensor, pad_id: int) -> Tensor:
    """Tokens of each row before the padding at its end, `(batch,)`, at least one.

    Only the run of `pad_id` that ends a row is padding: the same id inside a text is a token like any other.

    Args:
        ids: `(batch, tokens)`.
        pad_id: what stands behind a text.
    """
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return torch.where(ids != pad_id, places, 0).amax(dim=1).clamp(min=1)


def _check_family(family: str) -> None:
    """Refuse a model whose first token sees itself alone.

    Raises:
        ValueError: a family that transformers has no masked language model of.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if family not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ValueError(
            f"text.family is {family!r}; expected one that reads in both directions (bert, roberta, distilbert, "
            "modernbert, ...): features are read at the first token"
        )


@ENCODERS.register_module(name="transformers_text")
class TransformersText(nn.Module):
    """A text model of transformers that reads in both directions; pooled is its first token (BERT's [CLS]).

    Padding is what stands behind a text's last other id and is masked, so that a batch may be trimmed or padded freely.
    The tower replaces CLIP's in DeCLIP's repository too (`text_encode_type`), there without a mask and without weights.

    Args:
        family: the `model_type` of its configuration (`bert`, `roberta`, `distilbert`, ...).
        width: its `hidden_size`.
        context_length: most tokens per text; its positions must suffice.
        vocab_size: number of ids; the tokenizer's.
        pad_id: id behind the texts of a batch; the tokenizer's.
        options: further fields of its configuration (`num_hidden_layers`, ...).
        pretrained_folder: local folder with config.json and weights, or None for random ones; `options` then override
            its configuration. Code that a folder brings along is never run.

    Raises:
        ValueError: a family that reads in one direction or is not the folder's, a width or vocabulary that is not the
            model's, or too few positions; each with what to set.
    """

    def __init__(
        self,
        family: str,
        width: int,
        context_length: int,
        vocab_size: int,
        pad_id: int,
        options: Mapping[str, Any] | None = None,
        pretrained_folder: str | None = None,
    ) -> None:
        from transformers import AutoConfig, AutoModel

        super().__init__()
        _check_family(family)
        fields = {**(options or {}), "pad_token_id": pad_id}
        if pretrained_folder is None:
            config = AutoConfig.for_model(family, **fields, vocab_size=vocab_size)
        else:
            config = folder_config(pretrained_folder, family, "text", "text_config")
            config.update(fields)
        _check_sizes(config, width, context_length, vocab_size)
        if pretrained_folder is None:
            self.model = AutoModel.from_config(config, trust_remote_code=False)
        else:
            self.model = AutoModel.from_pretrained(
                pretrained_folder, config=config, local_files_only=True, trust_remote_code=False
            )
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # no gradient would reach it
        self.family, self.width, self.pad_id = family, width, pad_id
        self.context_length, self.vocab_size = context_length, vocab_size

    @staticmethod
    def self_contained(node: Mapping[str, Any]) -> dict[str, Any]:
        """The node without `pretrained_folder`; the architecture that the folder declares moves into `options`."""
        return without_folder(node, "text", "text_config", ("vocab_size", "pad_token_id"))

    def forward(self, ids: Tensor) -> TextFeatures:
        """Features of token ids `(batch, tokens)`, padded behind each text with `pad_id`.

        Raises:
            TypeError, ValueError: as `check_ids`.
        """
        check_ids(ids, self.context_length, self.vocab_size)
        mask = torch.arange(ids.shape[1], device=ids.device) < text_lengths(ids, self.pad_id)[:, None]
        tokens = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return TextFeatures(tokens[:, 0], tokens, mask)


def _check_sizes(config: Any, width: int, context_length: int, vocab_size: int) -> None:
    """Compare a configuration of transformers with what the rest of the model is built for."""
    if config.hidden_size != width:
        raise ValueError(f"text.width is {width}, but the model has {config.hidden_size}; set text.width")
    if config.vocab_size != vocab_size:
        raise ValueError(f"text.vocab_size is {vocab_size}, but the model has {config.vocab_size} ids; set it to that")
    # RoBERTa and its kin count positions from pad_id + 1
    offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and places - offset < context_length:
        raise ValueError(f"text.context_length is {context_length}; the model has positions for {places - offset}")
