"""Where the golden files and the real datasets lie, if they do."""

from __future__ import annotations

import os
from pathlib import Path

_SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(os.environ.get("LIKEJAX_GOLDEN", _SHARED / "golden"))
DATA = Path(os.environ.get("LIKEJAX_DATA", _SHARED / "data"))
