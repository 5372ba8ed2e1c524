"""Values of options of command lines that are no Hydra applications; an error names the option and what it takes."""

from __future__ import annotations

import math
import re
from typing import Any

#: Units of sizes, in bytes.
UNITS = {"GB": 10**9, "GiB": 2**30, "MB": 10**6, "MiB": 2**20}


def flag(key: str, value: str) -> bool:
    """True or false.

    Raises:
        ValueError: anything else.
    """
    if value not in ("true", "false"):
        raise ValueError(f"{key}={value}: expected true or false")
    return value == "true"


def number(key: str, value: Any) -> float:
    """A finite number of 0 or more.

    Raises:
        ValueError: anything else.
    """
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise ValueError(f"{key}={value}: expected a number of 0 or more")
    return found


def whole(key: str, value: Any, least: int = 0) -> int:
    """A whole number; 120e6 is one.

    Raises:
        ValueError: anything else, or less than `least`.
    """
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not (least <= found < math.inf and found == int(found)):
        raise ValueError(f"{key}={value}: expected a whole number{f' of at least {least}' if least else ''}")
    return int(found)


def size_in_bytes(key: str, value: str, least: int = 0) -> int:
    """Bytes of a number with its unit, as in 80GB.

    Raises:
        ValueError: no number, another unit, or less than `least` bytes.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(GB|GiB|MB|MiB)", value)
    size = -1 if found is None else int(float(found[1]) * UNITS[found[2]])
    if size < least:
        raise ValueError(f"{key}={value}: expected a number with GB, GiB, MB or MiB, as in 5GB")
    return size


def listed(value: str) -> list[str]:
    """Words of `[one,two]`, `one,two`, `one` or nothing."""
    return [word.strip() for word in value.strip("[]").split(",") if word.strip()]
