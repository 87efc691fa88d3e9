"""What a build left."""

import hashlib
from pathlib import Path


def files(folder: Path) -> dict[str, str]:
    """Every file below a folder and its checksum, but for those that say how it came to be published."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not {"_contracts", "_locks", "contract.json"} & set(path.relative_to(folder).parts)
    }
