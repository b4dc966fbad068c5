"""accepted.yaml: results that stand over a change of code, as their author vouches."""

from dataclasses import dataclass
from typing import Any

from finetrace.config.yamlfile import load_yaml
from finetrace.errors import FinetraceError
from finetrace.layout import Layout

NAME = "accepted.yaml"
HALVES = ("measure", "draw")


@dataclass(frozen=True)
class Accepted:
    """entries: script -> {because, content: settings/code/SCRIPT.json of the code that made the results, measure and
    draw: fingerprints of the code that is accepted in its place}."""

    entries: dict[str, dict[str, Any]]

    def apply(self, script: str, content: dict[str, Any]) -> dict[str, Any]:
        """What settings/code/SCRIPT.json says: that of the code that made the results where this code is accepted in
        its place."""
        entry = self.entries.get(script)
        if entry is None or any(content[half] != entry[half] for half in HALVES):
            return content
        return dict(entry["content"])

    def reason(self, script: str, content: dict[str, Any]) -> str:
        """Why results of other code stand; content: of settings/code/SCRIPT.json. Empty where they are the code's
        own."""
        entry = self.entries.get(script)
        return str(entry["because"]) if entry is not None and entry["content"] == content else ""


def accepted(layout: Layout) -> Accepted:
    """What the project's authors vouch for. Raises FinetraceError for a damaged file."""
    path = layout.root / NAME
    if not path.is_file():
        return Accepted({})
    import yaml

    try:
        content = load_yaml(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError):  # e.g. with the marks of a merge
        content = None
    if not isinstance(content, dict) or not all(map(_is_entry, content.values())):
        raise FinetraceError(f"{path.name}: is not what `finetrace accept` writes; restore it from git, or delete it")
    return Accepted(content)


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and {"because", "content", *HALVES} <= set(entry)
        and isinstance(entry["content"], dict)
        and set(HALVES) <= set(entry["content"])
    )
