"""The five tables of leads and maps: their columns, and what they say of a small study."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrace.atlas.leads_and_maps import (
    LEADS,
    MAPS,
    PHASES,
    SIGNALS,
    TURNS,
    VERSION,
    courses,
)
from finetrace.atlas.signals import Cell, Signal
from finetrace.store.tables import write_table

STEPS = 100 * np.arange(14)
COLUMNS = {"signals": SIGNALS, "leads": LEADS, "maps": MAPS, "phases": PHASES, "turns": TURNS}


def cell(name: str, seeds: tuple[int, ...], lag: int = 1) -> Cell:
    """Loss falls in one jump that comes at another step in every seed; accuracy rises `lag` checkpoints later."""
    rng = np.random.default_rng(len(seeds))
    jumps = rng.permuted(np.tile(np.arange(4, 9), 2))[:len(seeds)]
    loss = np.array([np.where(np.arange(14) < jump, 3.0, 1.0) for jump in jumps])
    accuracy = np.array([np.where(np.arange(14) < jump + lag, 0.2, 0.8) for jump in jumps])
    values = np.stack([loss, accuracy], axis=1) * (1 + 0.02 * rng.normal(size=(len(seeds), 2, 14)))
    signals = (Signal("trajectory/train/loss", "trajectory", "loss", ("train",), (), False, False, "nats", "down"),
               Signal("probes/accuracy", "probes", "accuracy", (), (), False, True, "share", "up"))
    places = tuple(f"{name}/s{seed}" for seed in seeds)
    return Cell(name, places, seeds, STEPS, signals, values, {"hulls/clusters": "does not move"})


CELLS = [cell("m/t/ft", tuple(range(1, 9))), cell("m/pretrain", (-1,), lag=3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("courses"))


def written(folder: Path) -> Path:
    for name, table in courses(CELLS, seed=3).items():
        write_table(folder / f"{name}.parquet", table)
    return folder


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_those_that_are_documented(folder: Path, name: str) -> None:
    schema = pq.read_schema(folder / f"{name}.parquet")
    assert schema.names == list(COLUMNS[name]) and schema.metadata[b"finetrace_leads_and_maps"] == str(VERSION).encode()
    assert [field.type for field in schema] == [kind for kind, _ in COLUMNS[name].values()]
    assert all(meaning for _, meaning in COLUMNS[name].values())


def test_signals_are_the_curves(folder: Path) -> None:
    frame = pd.read_parquet(folder / "signals.parquet")
    assert len(frame) == 9 * 2 * 14
    one = frame[(frame.place == "m/t/ft/s2") & (frame.signal == "probes/accuracy")]
    np.testing.assert_array_equal(one.value, CELLS[0].values[1, 1])
    assert one.step.tolist() == STEPS.tolist() and set(one.unit) == {"share"} and set(one.heading) == {"accuracy"}


def test_leads_have_a_row_per_lag(folder: Path) -> None:
    frame = pd.read_parquet(folder / "leads.parquet")
    of = frame[frame.cell == "m/t/ft"]
    assert of["lag"].tolist() == list(range(-4, 5)) and set(of["verdict"]) == {"first leads"}
    best = of[of["lag"] == of["best_lag"]].iloc[0]
    assert (best["first"], best["second"], best["lag"]) == ("trajectory/train/loss", "probes/accuracy", 1)
    assert best["correlation"] < best["null_low"] and best["p_cell"] < 0.05 and best["seeds"] == 8
    alone = frame[frame.cell == "m/pretrain"]
    assert set(alone["verdict"]) == {"undecided"} and alone["p"].isna().all() and alone["correlation"].notna().all()


def test_maps_phases_and_turns_go_together(folder: Path) -> None:
    maps, phases, turns = (pd.read_parquet(folder / f"{name}.parquet") for name in ("maps", "phases", "turns"))
    assert len(maps) == 9 * 14 and set(maps.verdict) == {"phases"}
    for name, count in maps.groupby("cell", observed=True).states.first().items():
        of = phases[phases.cell == name]
        assert set(of.state) == set(maps[maps.cell == name].state) == set(range(count)) and len(of) == 2 * count
        assert (of.first_step <= of.last_step).all()
    of = turns[turns.cell == "m/pretrain"]
    assert of.signal.tolist()[:2] == ["trajectory/train/loss", "probes/accuracy"]
    assert of[of.largest].signal.tolist() == of.signal.tolist()[:2] and of[of.largest].turn.tolist() == [0, 1]
    assert of[of.largest].moves.tolist() == ["trajectory", "probes"]


def test_a_study_without_cells_has_empty_tables() -> None:
    tables = courses([], 1)
    assert {name: table.num_rows for name, table in tables.items()} == dict.fromkeys(COLUMNS, 0)
    assert all(table.schema.names == list(COLUMNS[name]) for name, table in tables.items())
    assert pa.types.is_dictionary(tables["leads"].schema.field("verdict").type)


def test_equal_studies_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    for name in COLUMNS:
        assert (written(tmp_path) / f"{name}.parquet").read_bytes() == (folder / f"{name}.parquet").read_bytes()
