"""`python -m multimodal_zoo` (and `torchrun -m multimodal_zoo`): the same as `mmzoo`."""

from __future__ import annotations

import sys

from multimodal_zoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
