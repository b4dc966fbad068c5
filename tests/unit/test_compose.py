"""compose.yaml and the Dockerfile, read: what is open, what is pinned, where passwords come from."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SERVER = ("database", "tracking")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    return found


def test_the_server_is_a_profile_and_the_rest_is_as_before(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if service.get("profiles") == ["server"]} == set(SERVER)
    assert "profiles" not in services["pipeline"] and "profiles" not in services["mlflow"]
    assert services["tracking"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert all("test" in services[name]["healthcheck"] for name in ("mlflow", *SERVER))


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports and all(re.match(r"(\$\{SERVER_ADDRESS-)?127\.0\.0\.1\}?:\d+:\d+$", port) for port in ports)
    assert "ports" not in services["database"]


def test_passwords_come_from_the_environment_alone(services: dict[str, Any]) -> None:
    variables = {name: value for key in SERVER for name, value in services[key]["environment"].items()}
    secret = {name: value for name, value in variables.items() if re.search("PASSWORD|SECRET", name)}
    assert len(secret) == 4 and all(re.fullmatch(r"\$\{\w+-\}", value) for value in secret.values())
    assert not re.search(r"://\w+:", (ROOT / "compose.yaml").read_text("utf-8"))
    assert "admin_password" not in (ROOT / "docker" / "basic_auth.ini").read_text("utf-8")


def test_versions_are_fixed(services: dict[str, Any]) -> None:
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", services["database"]["image"])
    text = (ROOT / "Dockerfile").read_text("utf-8")
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, flags=re.M)
    assert stages == [("${BASE_IMAGE}", "study"), ("study", "server"), ("study", "")], "the last one is the default"
    pinned = re.findall(r"([\w-]+)==([\d.]+)", text.partition(" AS server")[2])
    pins = {name.lower(): version for name, version in pinned}
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["postgres"]
    assert set(pins) == {"psycopg2-binary", "flask-wtf", "wtforms"}
    assert all(Requirement(text).specifier.contains(pins[Requirement(text).name]) for text in extra)


def test_mlflow_knows_the_words_of_the_server(services: dict[str, Any]) -> None:
    from mlflow.cli import server

    words = [re.sub(r"^\$\{\w+-(.*)\}$", r"\1", word) for word in services["tracking"]["command"]]
    assert words[:2] == ["mlflow", "server"]
    options = server.make_context("server", words[2:]).params
    assert options["serve_artifacts"] and options["artifacts_destination"].startswith("/home/finetrace/project/")
    assert options["backend_store_uri"] == "postgresql+psycopg2://mlflow@database/mlflow"
    assert options["app_name"] == "basic-auth"
