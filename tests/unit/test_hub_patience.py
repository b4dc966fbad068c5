"""The hub is asked again when it is busy, and its cache answers where there is no network."""

import json
import shutil

import pytest
from huggingface_hub import constants
from tests.hub import Hub, commit
from tests.training_fixtures import bert_config, model_folder, tokenizer

from finetrace.config.series import SeriesSettings
from finetrace.errors import FinetraceError
from finetrace.models import hub as client
from finetrace.models.fetch import fetch_hub
from finetrace.models.series import resolve_series
from finetrace.models.sources import Published, fetch_published


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    model_folder(root / "models" / "acme" / "tiny" / "main")
    for name in ("bare", "wordless"):
        shutil.copytree(root / "models" / "acme" / "tiny" / "main", root / "models" / "acme" / name / "main")
    (root / "models" / "acme" / "bare" / "main" / "config.json").unlink()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (root / "models" / "acme" / "wordless" / "main" / file).unlink()
    for step in (0, 10):
        config = bert_config(dropout=0.1 + step / 100)
        model_folder(root / "models" / "acme" / "series" / f"step{step}", config)
        other = root / "models" / "acme" / "series" / f"step{step}" / "model.safetensors"
        if step:  # other weights
            import torch
            from transformers import BertModel

            torch.manual_seed(step)
            BertModel(config).save_pretrained(other.parent)
    return root


@pytest.fixture
def online(served, tmp_path, monkeypatch):
    """A function that starts a hub and lets the client ask it, with a fresh cache."""
    running = []

    def start(**faults):
        hub = Hub(served, **faults).__enter__()
        running.append(hub)
        for name, value in {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "cache"),
                            "HF_HUB_DISABLE_XET": True}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                            hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(client, "PAUSES", (0.01, 0.01))
        return hub

    yield start
    for hub in running:
        hub.__exit__()


def fetched(tmp_path, name, model_id, revision="main"):
    out = tmp_path / name
    out.mkdir()
    return fetch_hub("mine", model_id, revision, out)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_busy_hub_is_asked_again(online, served, tmp_path, caplog, failures):
    left = [failures]

    def busy(path):
        if path.startswith("api/models/acme/tiny/revision") and left[0]:
            left[0] -= 1
            return True
        return False

    hub = online(busy=busy)
    assert fetched(tmp_path, "out", "acme/tiny")["revision"] == commit(served / "models" / "acme" / "tiny" / "main")
    assert caplog.text.count(f"acme/tiny: {hub.url} is asked again in") == failures


def test_a_hub_that_stays_busy_is_named_with_what_to_do(online, tmp_path):
    hub = online(busy=lambda path: path.startswith("api/"))
    with pytest.raises(FinetraceError, match=r"models.mine: acme/tiny at revision main could not be fetched: "
                                             r"") as error:
        fetched(tmp_path, "out", "acme/tiny")
    message = str(error.value)
    assert hub.url in message and "HF_ENDPOINT" in message and "HF_HUB_OFFLINE=1" in message and "\n" not in message
    assert sum("acme/tiny" in path for path in hub.requests) == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_what_no_second_try_mends_is_not_tried_again(online, tmp_path):
    hub = online()
    with pytest.raises(FinetraceError, match="RepositoryNotFoundError") as error:
        fetched(tmp_path, "out", "acme/absent")
    assert "HF_ENDPOINT" not in str(error.value)
    assert len(hub.requests) == 1


def test_no_hub_at_all_is_named(online, tmp_path):
    hub = online()
    hub.__exit__()
    with pytest.raises(FinetraceError, match=f"could not be fetched: Connect.*{hub.url}.*HF_ENDPOINT"):
        fetched(tmp_path, "out", "acme/tiny")


def test_without_a_network_the_cached_commit_is_used(online, served, tmp_path, monkeypatch):
    hub = online()
    first = fetched(tmp_path, "online", "acme/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    for name, revision in (("named", "main"), ("commit", first["revision"])):
        assert fetched(tmp_path, name, "acme/tiny", revision) == first
        assert {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} == {
            p.name: p.read_bytes() for p in (tmp_path / "online").iterdir()}
    (tmp_path / "cache" / "models--acme--tiny" / "refs" / "main").unlink()
    assert fetched(tmp_path, "only one", "acme/tiny") == first
    assert len(hub.requests) == before
    (tmp_path / "cache" / "models--acme--tiny" / "snapshots" / ("0" * 40)).mkdir()
    with pytest.raises(FinetraceError, match=f"does not know main; there are the commits {'0' * 40}, "
                                             f"{first['revision']}: name"):
        fetched(tmp_path, "which", "acme/tiny")
    with pytest.raises(FinetraceError, match=r"HF_HUB_OFFLINE is set.*nothing of this model is there, or run once "
                                             r"with"):
        fetched(tmp_path, "never", "acme/other")


def test_a_series_is_looked_up_in_the_cache_too(online, tmp_path, monkeypatch):
    hub = online()
    wanted = SeriesSettings(id="acme/series", revision="step{step}", steps=(0, 10))
    for place in ("online", "offline"):
        (tmp_path / place).mkdir()
        resolve_series("mine", wanted, tmp_path / place)
        found = {step: Published(**one) for step, one in
                 json.loads((tmp_path / place / "series.json").read_text())["checkpoints"].items()}
        for one in found.values():
            fetch_published(one)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(found) == 2
    assert {p.relative_to(tmp_path / "online"): p.read_bytes() for p in (tmp_path / "online").rglob("*")
            if p.is_file()} == {
        p.relative_to(tmp_path / "offline"): p.read_bytes() for p in (tmp_path / "offline").rglob("*") if p.is_file()}
    assert hub.requests


def test_repositories_without_config_or_tokenizer_are_refused(online, tmp_path):
    online()
    with pytest.raises(FinetraceError, match=r"models.mine: acme/bare at main has no config.json"):
        fetched(tmp_path, "bare", "acme/bare")
    with pytest.raises(FinetraceError, match=r"models.mine: .*tokenizer"):
        fetched(tmp_path, "wordless", "acme/wordless")
    assert len(tokenizer()) > 16
