"""Settings as they stand in settings files, manifests and keys of results."""

import dataclasses
from typing import Any

from finetrace.config.base import as_dict


def written(value: Any) -> dict[str, Any]:
    """Settings as plain YAML values, without those keys of `LATER` that have their default.

    LATER, an attribute of some classes of settings, names the keys that came after results had been made: where such a
    key says nothing, the files are as they were, and nothing runs again.
    """
    later = getattr(type(value), "LATER", ())
    usual = {field.name: field.default for field in dataclasses.fields(value) if field.name in later}
    return {key: setting for key, setting in as_dict(value).items() if key not in usual or setting != usual[key]}
