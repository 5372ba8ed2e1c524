"""EVE, versions 1 and 2 (arXiv 2406.11832, 2502.06788): what each call of its cases means."""

from __future__ import annotations

from harness.run import System
from systems.eve_parts import aligning, embedding, evaluation, groups, images, layers, models, prompts, sequences

PARTS = (aligning, embedding, evaluation, groups, images, layers, models, prompts, sequences)
SYSTEM = System(
    "eve",
    fields={name: check for part in PARTS for name, check in part.FIELDS.items()},
    call_fields=frozenset().union(*(part.CALL_FIELDS for part in PARTS)),
)
for part in PARTS:
    part.register(SYSTEM)
