"""Random numbers as a pure function of (seed, numbers), whatever the worker count and whatever ran before."""

from __future__ import annotations

import hashlib
import random
import struct

import torch


def derive(*numbers: int) -> int:
    """A 63-bit seed from any integers."""
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def python_random(*numbers: int) -> random.Random:
    """A `random.Random` seeded by `derive`."""
    return random.Random(derive(*numbers))


def torch_random(*numbers: int) -> torch.Generator:
    """A CPU `torch.Generator` seeded by `derive`."""
    return torch.Generator().manual_seed(derive(*numbers))
