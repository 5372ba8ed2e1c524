from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests' own samples
sys.path.insert(0, str(Path(__file__).parents[1] / "decoders"))  # those of EVE
