"""What tests share: no network, and one small world with a tiny random BERT per session."""

import gc
import os
import signal

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false"
)

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole studies first: each is one long file, which at the end would leave the other processes idle."""
    items.sort(key=lambda item: "tests/pipeline/" not in item.nodeid)


def pytest_collection_finish() -> None:
    """What the imports of all tests have made stays: the garbage collector, which every training calls, need not go
    through it each time."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Micro:
    """world: a small micro world;  model: folder of a tiny random BERT with the world's tokenizer (no manifest)."""

    world: object
    model: Path


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """A small micro world and a model folder, built once; treat them as read-only."""
    import torch
    from transformers import BertConfig, BertModel

    from finetrace.config.world import WorldSettings
    from finetrace.data.world import build_tokenizer, build_world

    world = build_world(WorldSettings(corpus_sentences=500, train_rows=64, validation_rows=24, test_rows=24), seed=0)
    tokenizer = build_tokenizer(world)
    folder = tmp_path_factory.mktemp("micro") / "model"
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Micro(world, folder)


@pytest.fixture
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python <project>/<script> <arguments>` in a folder; further keywords are environment variables."""

    def run(script: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": "", **environment}
        return subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=cwd,
            env=env,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )

    return run


def listen_to_ctrl_c() -> None:
    """`preexec_fn` of a process that a test interrupts: a suite started in the background hands down an ignored
    SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
