"""params.yaml as a file: whatever is wrong with it is one sentence, wherever it is read."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.code_project import code_project

from finetrace.cli import main
from finetrace.config.yamlfile import read_yaml
from finetrace.errors import FinetraceError
from finetrace.pipeline.repro import repro
from finetrace.tracking.doctor import doctor

WRONG = {
    "tab": (b"study:\n\tname: demo\n", "line 2: not valid YAML: found character '\\t' that cannot start any token; "
                                       "indent"),
    "empty": (b"", "is empty or not a mapping; start from studies/"),
    "utf-16": ("study: {name: demo}\n".encode("utf-16"), "is not UTF-8 but, it seems, UTF-16; save it as UTF-8"),
    "utf-16 without a mark": ("study: {name: demo}\n".encode("utf-16-le"), "it seems, UTF-16"),
    "latin-1": (b"study: {name: demo}\n# caf\xe9\n", "line 2: byte 25 is not UTF-8"),
    "unknown key": (b"study: {name: demo}\nhulsl: {}\n", "unknown key 'hulsl'; did you mean 'hulls'?"),
    "deep": (b"{" * 500, "nested too deeply"),
    "in itself": (b"study: &a {name: demo, more: *a}\n", "aliases (*name) repeat themselves"),
    "octal": (b"study:\n  name: demo\n  seed: 010\n", "line 3: not valid YAML: 010 is read as 8 by YAML 1.1"),
    "minutes": (b"study: {name: demo}\ntrain: {max_steps: 1:30}\n",
                "line 2: not valid YAML: 1:30 is read as 90 by YAML 1.1"),
    "bell": (b"study: {name: demo}\na: \x07\n", "line 2: not valid YAML: the character U+0007 cannot stand there"),
    "tag": (b"study: {name: demo, seed: !!int x}\n", "not valid YAML: invalid literal for int"),
    "no study": (b"tasks: {}\n", "key 'study' is missing; add it"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_every_entry_point_says_it_in_one_line(name: str, tmp_path: Path, monkeypatch, capsys):
    content, told = WRONG[name]
    monkeypatch.setattr("finetrace.config.yamlfile.LARGEST", 10_000)  # every command counts to it
    layout = code_project(tmp_path)
    layout.params.write_bytes(content)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "params.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    commands = "plan", "plan --list", "use params", "publish", "table lp-ft", "accept all --because x"
    for command in map(str.split, commands):
        assert main(command) == 1, command
        message = capsys.readouterr().err
        assert message.startswith("finetrace: params.yaml") and told in message and message.count("\n") == 1, command
    assert not (tmp_path / "plan.yaml").exists() and layout.params.read_bytes() == content
    found: list[str] = []
    doctor(layout, found.append)
    assert any(told in line for line in found)


def test_repro_with_jobs_says_it_too(tmp_path: Path, monkeypatch):
    layout = code_project(tmp_path)
    for content, told in (WRONG["unknown key"], WRONG["tab"]):
        layout.params.write_bytes(content)
        with pytest.raises(FinetraceError, match=told.split("'")[0].split("(")[0]):
            repro(layout, 2, executor=_Nobody())


class _Nobody:
    def prepare(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("script", ["plan", "settings"])
def test_so_does_dvc_repro(script: str, tmp_path: Path, run_script: Callable[..., "CompletedProcess[str]"]):
    code_project(tmp_path).params.write_bytes(WRONG["unknown key"][0])
    done = run_script(f"pipelines/{script}.py", cwd=tmp_path)
    assert (
        done.returncode == 1 and done.stderr == "finetrace: params.yaml: unknown key 'hulsl'; did you mean 'hulls'?\n"
    )


def test_aliases_that_multiply_are_refused_soon(tmp_path: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "params.yaml").write_text("\n".join(lines))
    began = time.monotonic()
    with pytest.raises(FinetraceError, match="write them out"):
        read_yaml(tmp_path / "params.yaml")
    assert time.monotonic() - began < 20


def test_a_folder_or_a_pipe_in_its_place(tmp_path: Path):
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(FinetraceError, match=r"params.yaml: is no file"):
        read_yaml(tmp_path / "params.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(FinetraceError, match=r"pipe.yaml: is no file"):
        read_yaml(tmp_path / "pipe.yaml")
    with pytest.raises(FinetraceError, match="not found; run this in the project folder"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes("\ufeffstudy: {name: demo}\n".encode())
    assert read_yaml(tmp_path / "params.yaml") == {"study": {"name": "demo"}}
