"""Where a posterior's data are in a folder of posteriordb's.

Two layouts are read: a checkout of github.com/stan-dev/posteriordb, whose JSON files are zipped; and one folder a
posterior, with ``data.json``.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

CHECKOUT = Path("posterior_database")
"""What a checkout has, and the other layout has not."""


def is_checkout(folder: Path) -> bool:
    """Whether the folder is a checkout of posteriordb's repository."""
    return (folder / CHECKOUT).is_dir()


def data_file(folder: Path, posterior: str) -> Path:
    """Where the data of a posterior are; ``posterior`` is posteriordb's full name, ``"garch-garch11"``."""
    if is_checkout(folder):
        return folder / CHECKOUT / "data" / "data" / f"{posterior.partition('-')[0]}.json.zip"
    return folder / posterior / "data.json"


def read_json(file: Path) -> Any:
    """What a JSON file holds, or the one file in an archive; ``OSError`` or ``ValueError`` where it cannot be read."""
    if file.suffix != ".zip":
        return json.loads(file.read_text(encoding="utf-8"))
    try:
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read(archive.namelist()[0]))
    except (zipfile.BadZipFile, IndexError) as error:
        raise ValueError(str(error)) from error
