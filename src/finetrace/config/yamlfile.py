"""YAML as a person means it: no key twice, and no text that YAML 1.1 silently reads as something else."""

import codecs
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError

LARGEST = 1_000_000
"""Values of a file, those that aliases repeat included."""


class _Int(int):
    """A whole number that is written in a way of its own, as 1_000 or +5: as a text it is what was written."""

    written: str

    def __str__(self) -> str:
        return self.written


class _Float(float):
    """A number that is written in a way of its own, as 1.50: as a text it is what was written."""

    written: str

    def __str__(self) -> str:
        return self.written


def read_yaml(path: Path) -> Any:
    """The plain values of a file. Raises FinetraceError naming file, line and fix."""
    import yaml

    text = _text(path)
    try:
        return load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        hint = "; indent with blanks, not with tabs" if "'\\t'" in problem else ""
        raise FinetraceError(f"{path.name}{f' line {mark.line + 1}' if mark else ''}: not valid YAML: "
                             f"{problem}{hint}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise FinetraceError(f"{path.name} line {line}: not valid YAML: the character "
                             f"U+{ord(text[error.position]):04X} cannot stand there; remove it") from error
    except RecursionError:
        raise FinetraceError(f"{path.name}: not valid YAML: brackets or indents are nested too deeply; is this the "
                             "right file?") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError) as error:  # of !!bool maybe, !!int x
        raise FinetraceError(f"{path.name}: not valid YAML: {' '.join(str(error).split())}") from error


def load_yaml(text: str) -> Any:
    """Plain YAML values; a key that stands twice is an error, where plain YAML would silently take the last.

    yes, no, on and off are texts, as are dates; 010 and 1:30, which YAML 1.1 reads as 8 and 90, are errors. Raises
    YAMLError.
    """
    import yaml

    values = yaml.load(text, _loader())
    waiting, count = [values], 0
    while waiting:  # aliases can repeat what they stand in, or multiply: neither may reach those who read the values
        value = waiting.pop()
        count += 1
        if count > LARGEST:
            raise yaml.YAMLError(f"aliases (*name) repeat themselves, or make more than {LARGEST:,} values; write "
                                 "them out")
        waiting += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return values


@lru_cache
def _loader() -> Any:
    """PyYAML's safe loader with these rules."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for i, (key, _) in enumerate(node.value):
                if key.value in keys[:i]:
                    problem = f"the key {key.value!r} stands twice; remove one"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            return node

        def construct_yaml_int(self, node: Any) -> int:
            digits = node.value.lstrip("+-")
            value = super().construct_yaml_int(node)
            if ":" in digits or (len(digits) > 1 and digits.startswith("0") and digits[1] in "01234567_"):
                _refuse(node, f"{node.value} is read as {value} by YAML 1.1; write that number, or put a text in "
                              "quotes")
            return value if str(value) == node.value else _as_written(_Int(value), node.value)

        def construct_yaml_float(self, node: Any) -> float:
            value = super().construct_yaml_float(node)
            if ":" in node.value:
                _refuse(node, f"{node.value} is read as {value} by YAML 1.1; write that number, or put a text in "
                              "quotes")
            return value if str(value) == node.value else _as_written(_Float(value), node.value)

    def _refuse(node: Any, problem: str) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    texts = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    Loader.yaml_implicit_resolvers = {first: [pair for pair in pairs if pair[0] not in texts]
                                      for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"),
                                 list("tTfF"))
    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)
    return Loader


def _as_written(number: Any, text: str) -> Any:
    number.written = text
    return number


def _text(path: Path) -> str:
    """A file's text. Raises FinetraceError for what is no UTF-8."""
    if not path.exists():
        raise FinetraceError(f"{path.name}: not found; run this in the project folder")
    if not path.is_file():  # a pipe would never end
        raise FinetraceError(f"{path.name}: is no file; put the study there, or take one of studies/ (finetrace use "
                             "NAME)")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FinetraceError(f"{path.name}: cannot be read ({error.strerror}); look at its permissions") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise FinetraceError(f"{path.name}: is not UTF-8 but, it seems, UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FinetraceError(f"{path.name} line {line}: byte {error.start} is not UTF-8; save the file as "
                             "UTF-8") from error
