"""DVC's cache, as files: objects whose names are the MD5 of their content."""

import configparser
import hashlib
from collections.abc import Iterator
from pathlib import Path


def damaged_objects(dvc: Path) -> Iterator[Path]:
    """Files of the cache of a folder .dvc whose content is not what their names say: hashes all of it."""
    config = configparser.ConfigParser(strict=False, interpolation=None)
    config.read([dvc / "config", dvc / "config.local"])
    cache = dvc / config.get("cache", "dir", fallback="cache")
    for file in sorted((cache / "files" / "md5").glob("??/*")):
        if file.is_file() and len(file.stem) == 30:
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if digest != file.parent.name + file.stem:
                yield file
