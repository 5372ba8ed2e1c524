"""Fast-BEV (arXiv 2301.12511): what each call of its cases means."""

from __future__ import annotations

from harness.run import System
from systems.fast_bev_parts import boxes, data, encoders, head, lifting, metrics, models, schedule, submission

PARTS = (boxes, data, encoders, head, lifting, metrics, models, schedule, submission)
SYSTEM = System(
    "fast_bev",
    fields={
        "data_licence": None,
        "pitfalls": None,
        **{name: check for part in PARTS for name, check in part.FIELDS.items()},
    },
    call_fields=frozenset({"max_mismatched"}),
)
for part in PARTS:
    part.register(SYSTEM)
