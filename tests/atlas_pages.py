"""What a page of the atlas holds, read back."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np


def study_of(atlas: Path) -> dict[str, Any]:
    """The study in index.html. atlas: the folder."""
    text = (atlas / "index.html").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.DOTALL)
    assert found, f"{atlas}: index.html holds no study"
    return dict(json.loads(found[1]))


def unpack(text: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns and head of a packed part: what `finetrace.atlas.packing.pack` made."""
    content = gzip.decompress(base64.b64decode(text))
    size = int.from_bytes(content[:4], "little")
    head = json.loads(content[4:4 + size])
    return {column["name"]: np.frombuffer(content, np.dtype(column["kind"]).newbyteorder("<"), head["rows"],
                                          4 + size + column["offset"]) for column in head["columns"]}, head
