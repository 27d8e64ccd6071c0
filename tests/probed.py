"""What the architectures of the tests' models allow, found out once for all homes and one state of the code."""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


def put(home: Path) -> None:
    """Make a home share what the service finds out about architectures, unless it has a folder of its own."""
    folder = home / "models" / "capabilities"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(_shared(), target_is_directory=True)


@cache
def _shared() -> Path:
    code = hashlib.sha256()
    for file in sorted((ROOT / "workers").rglob("*.py")):
        code.update(file.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"luthier-test-capabilities-{code.hexdigest()[:16]}"
    folder.mkdir(exist_ok=True)
    return folder
