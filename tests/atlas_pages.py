"""What a page of the atlas holds, read back."""

import json
import re
from pathlib import Path
from typing import Any


def study_of(atlas: Path) -> dict[str, Any]:
    """The study in index.html. atlas: the folder."""
    text = (atlas / "index.html").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.DOTALL)
    assert found, f"{atlas}: index.html holds no study"
    return dict(json.loads(found[1]))
