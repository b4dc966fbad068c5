"""A password in an address stands in no message, log or file; a server that does not answer is told."""

import contextlib
import http.server
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.outputs import make_project
from tests.stage_project import project, quiet_logger  # noqa: F401 - fixtures

from finetrace import cli
from finetrace.config.tracking import TrackingSettings
from finetrace.errors import FinetraceError, hide_passwords
from finetrace.pipeline import stage as stage_module
from finetrace.study.plan import last_settings
from finetrace.tracking import doctor as doctor_module
from finetrace.tracking import live
from finetrace.tracking.publish import Published
from finetrace.tracking.store import Refused, open_store, tracking_uri, why_silent

SECRET = "s3cr:t"


@pytest.mark.parametrize(("text", "shown"), [
    ("http://ann:s3cret@host:5000/x", "http://ann:***@host:5000/x"),
    ("to https://ann:s3@cret@host, then", "to https://ann:***@host, then"),
    ("'postgresql+psycopg2://ann:s3/c?ret@db:5432/runs'", "'postgresql+psycopg2://ann:***@db:5432/runs'"),
    ("mysql://:s3cret@db/x", "mysql://:***@db/x"),
    ("mssql://db/x?user=ann&password=s3cret&driver=a", "mssql://db/x?user=ann&password=***&driver=a"),
    ("http://127.0.0.1:5000/#/experiments/1", "http://127.0.0.1:5000/#/experiments/1"),
    ("sqlite:////home/ann/a@b/mlflow.db", "sqlite:////home/ann/a@b/mlflow.db"),
    ("train@micro-a: see http://host:5000 or ann@host", "train@micro-a: see http://host:5000 or ann@host"),
    ("two: http://a:s3cret@b http://c:s3cret@d", "two: http://a:***@b http://c:***@d"),
])
def test_what_is_shown_of_an_address(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown
    assert str(FinetraceError(text)) == shown


@pytest.mark.parametrize("uri", [f"http://ann:{SECRET}@127.0.0.1:9", f"ftp://ann:{SECRET}@host/x"])
def test_errors_of_the_store_hold_no_password(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(FinetraceError) as error:
        open_store(tracking_uri(TrackingSettings(uri=uri), tmp_path), tmp_path, "demo")
    assert "ann:***@" in str(error.value) and SECRET not in str(error.value)


@pytest.mark.parametrize(("status", "said"), [
    (401, "a password, and does not accept those of ann; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    (403, "does not let ann write here; let whoever made the experiment, or an administrator, give you"),
])
def test_who_is_not_let_in_is_told_what_to_do(status: int, said: str, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    with answering(status) as port, pytest.raises(Refused) as error:
        open_store(f"http://127.0.0.1:{port}", tmp_path, "demo")
    assert said in str(error.value) and SECRET not in str(error.value) and "\n" not in str(error.value)


def test_what_publish_says_and_what_settings_hold(tmp_path: Path) -> None:
    uri = f"http://ann:{SECRET}@host:5000"
    text = Published(uri).summary()
    assert SECRET not in text and "look: http://ann:***@host:5000/#/experiments/" in text
    _, study = make_project(tmp_path, outputs=False, uri=f"postgresql://ann:{SECRET}/x@db/runs")
    assert SECRET not in str(last_settings(study))


def test_logs_and_traces_of_a_stage_hold_no_password(project: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    def main(stage: stage_module.Stage) -> None:
        stage_module.log.info("store: http://ann:%s@host", SECRET)
        raise RuntimeError(f"HTTPConnectionPool: http://ann:{SECRET}@host refused")

    monkeypatch.setattr(sys, "argv", ["data.py", "own"])
    with pytest.raises(SystemExit):
        stage_module.run("data", main)
    log = (project / ".finetrace" / "logs" / "data@own.log").read_text()
    for text in (capsys.readouterr().err, log):
        assert SECRET not in text and "ann:***@host refused" in text and "store: http://ann:***@host" in text


def test_the_follower_is_told_the_address_by_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments of a process are seen by all users of a machine."""
    layout, study = make_project(tmp_path, outputs=False, uri=f"http://ann:{SECRET}@127.0.0.1:9")
    seen: dict[str, object] = {}

    def popen(command: list[str], **how: object) -> None:
        seen.update(command=command, env=how["env"])

    monkeypatch.setattr(live.subprocess, "Popen", popen)
    live._FollowerProcess(tmp_path / "live.jsonl", study, layout).start()
    assert SECRET not in str(seen["command"])
    assert isinstance(seen["env"], dict) and seen["env"]["MLFLOW_TRACKING_URI"] == study.tracking.uri


def test_the_follower_says_why_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"ftp://ann:{SECRET}@host/x")
    monkeypatch.setattr(live.os, "nice", lambda _: 0)
    assert live.main([str(tmp_path / "live.jsonl"), "--study", "demo", "--home", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert SECRET not in error and error.strip().splitlines()[-1].startswith("FinetraceError: tracking uri "
                                                                             "'ftp://ann:***@host/x'")


@pytest.fixture
def server() -> Iterator[int]:
    """A web server that is no MLflow."""
    with answering(404) as port:
        yield port


@contextlib.contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a web server that answers everything with this status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(status)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one.server_address[1]
        one.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_why_a_server_is_silent(server: int) -> None:
    port = free_port()
    for uri in (f"http://ann:{SECRET}@127.0.0.1:{port}", f"postgresql://ann:x@127.0.0.1:{port}/runs",
                f"http://127.0.0.1:{server}"):
        text = why_silent(uri)
        assert text and SECRET not in text and "\n" not in text, uri
    assert why_silent(f"mysql+pymysql://ann:x@127.0.0.1:{server}/runs") is None, "something listens"
    assert why_silent("sqlite:///mlflow.db") is None and why_silent("databricks") is None


def test_the_doctor_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    layout, _ = make_project(tmp_path, outputs=False, uri=f"http://ann:{SECRET}@127.0.0.1:{port}")
    monkeypatch.setattr(doctor_module, "CHECKS", {"tracking store": doctor_module._store})
    lines: list[str] = []
    assert doctor_module.doctor(layout, lines.append) == 1
    text = "\n".join(lines)
    assert f"PROBLEM  tracking store: http://ann:***@127.0.0.1:{port} does not answer as a tracking store: " in text
    assert "fix: start the server, or correct tracking.uri" in text and SECRET not in text


def test_the_command_line_prints_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(_: object) -> int:
        raise FinetraceError(f"tracking store http://ann:{SECRET}@host: gone")

    monkeypatch.setattr("finetrace.pipeline.compile.compile_study", refuse)
    assert cli.main(["plan"]) == 1
    assert capsys.readouterr().err == "finetrace: tracking store http://ann:***@host: gone\n"
