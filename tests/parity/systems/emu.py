"""Emu and Emu2 (arXiv 2307.05222, 2312.13286): what each call of their cases means."""

from __future__ import annotations

from harness.run import System
from systems.emu_parts import evaluation, imagining, models, pictures, prompts, sequences, text, visual_decoder

PARTS = (evaluation, imagining, models, pictures, prompts, sequences, text, visual_decoder)
SYSTEM = System(
    "emu",
    fields={name: check for part in PARTS for name, check in part.FIELDS.items()},
    call_fields=frozenset().union(*(part.CALL_FIELDS for part in PARTS)),
)
for part in PARTS:
    part.register(SYSTEM)
