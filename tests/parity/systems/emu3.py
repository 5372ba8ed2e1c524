"""Emu3 (arXiv 2409.18869): what each call of its cases means."""

from __future__ import annotations

from harness.run import System
from systems.emu3_parts import generation, models, processor, samples, texts, training, vision

PARTS = (generation, models, processor, samples, texts, training, vision)
SYSTEM = System(
    "emu3",
    fields={name: check for part in PARTS for name, check in part.FIELDS.items()},
    call_fields=frozenset({"arguments"}),
)
for part in PARTS:
    part.register(SYSTEM)
