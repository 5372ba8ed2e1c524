"""The log-probabilities of preference pairs under a reference model, once and for all."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import torch
from torch import nn

from multimodal_zoo.data.captions import TextCaption
from multimodal_zoo.data.preference_pairs import PreferenceCollate, PreferencePairs
from multimodal_zoo.data.token_layouts import TextToImageLayout
from multimodal_zoo.data.token_sequences import TokenWeights
from multimodal_zoo.files import write_text
from multimodal_zoo.inference.speaking import evaluating, require_speaker
from multimodal_zoo.objectives.preference import joined, likelihoods


def add_reference(model: nn.Module, table: str | Path, *, batch_size: int = 1, held_logits: int = 2**23) -> Path:
    """Write a table's `reference`: the log-probabilities of both drawings' visual tokens behind their text.

    Preferences are then learnt without a second model in memory: `mmzoo train emu3/dpo reference=null`.

    Args:
        model: what preferences are to be counted from: the weights that training starts from.
        table: of `preference_pairs`; it is written anew, its arrays stay as they are.
        batch_size: pairs at a time.
        held_logits: logits that exist at a time.

    Returns:
        the table's path.

    Raises:
        TypeError: a model that predicts no tokens.
        ValueError: fewer than one pair at a time.
        UnusableError: codes that are missing or of another form.
    """
    emu3, processor = require_speaker(model, "add_reference", pixels=False)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    reader = PreferencePairs(str(table))
    layout = TextToImageLayout(TextCaption(), 0.0, end=False)
    longest = emu3.decoder.max_positions
    collate = PreferenceCollate(processor, layout, TokenWeights(0.0, 1.0, 0.0, 0.0, 0.0), longest, "error")
    lines = []
    with evaluating(emu3) as device:
        for start in range(0, len(reader), batch_size):
            numbers = range(start, min(start + batch_size, len(reader)))
            rows = [collate.text_row(reader[number], Random(0))._replace(reference=None) for number in numbers]
            both = joined(collate.batch(torch.empty(0), rows, torch.Generator()))
            sums = likelihoods(emu3, both.to(device), held_logits).sums.view(2, -1).T.tolist()
            for number, reference in zip(numbers, sums, strict=True):
                lines.append(json.dumps({**reader.lines[number], "reference": reference}, ensure_ascii=False))
    return write_text(table, "".join(f"{line}\n" for line in lines))
