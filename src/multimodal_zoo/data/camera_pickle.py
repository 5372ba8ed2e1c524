"""Published files of key frames that are pickles, read without running what they say.

A pickle can name any function to be called. Here only those that rebuild numpy arrays and plain containers are found;
every other name is refused before anything is called.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

#: (module, name) of what a file may call. numpy's own helpers moved from `core` to `_core` in its version 2.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
    ("collections", "OrderedDict"): OrderedDict,
    **{("builtins", one.__name__): one for one in (set, frozenset, complex, bytearray, slice, range)},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a file asks for by name, if it is one of the allowed."""
        try:
            return ALLOWED[module.replace("__builtin__", "builtins"), name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the file wants {module}.{name}; only numpy arrays and plain containers are read"
            ) from None


def read_pickle(path: Path) -> Any:
    """What a pickle of numpy arrays, texts, numbers, lists and mappings holds.

    Args:
        path: the file.

    Raises:
        ValueError: it holds anything else, or is damaged.
    """
    with path.open("rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except Exception as error:  # damaged bytes raise nearly anything
            raise ValueError(f"{path} cannot be read as a pickle of arrays: {type(error).__name__}: {error}") from error
