"""What the page knows: every slice leads to its rows of the one table, numbers are those of the lenses, and no text of
a study ends the script that holds it."""

import json
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.atlas_pages import unpack
from tests.outputs import manifest

from finetrace.atlas.bundle import Part, inside, lenses_over_steps, rows_about_the_whole, study_json, table_parts
from finetrace.atlas.collect import Entry
from finetrace.atlas.places import Place
from finetrace.atlas.table import COLUMNS

HOSTILE = "</script><!--<script>alert(1)</script> & \u2028 é"
PLACES = ["m/t/ft/s1", "m/t/ft/s2", "m/pretrain", "dynamics/m"]


@dataclass(frozen=True)
class Rows:
    """Rows of one lens at one place."""

    place: str
    lens: str
    count: int
    step: int = 0
    layer: int = -1


def one_table(*groups: Rows) -> pa.Table:
    """A table with the columns of the one table, each row with its own value."""
    frames, at = [], 0
    for group in groups:
        values = np.arange(at, at + group.count, dtype=float)
        at += group.count
        frame = pd.DataFrame({name: "" if pa.types.is_dictionary(kind) else [0] * group.count
                              for name, (kind, _) in COLUMNS.items()}, index=range(group.count))
        frames.append(frame.assign(place=group.place, lens=group.lens, value=values, step=group.step, layer=group.layer,
                                   quantity=[f"q{i % 3}" for i in range(group.count)], label=HOSTILE))
    frame = pd.concat(frames, ignore_index=True)
    return pa.table({name: pa.array(frame[name].tolist(), kind.value_type).dictionary_encode().cast(kind)
                     if pa.types.is_dictionary(kind) else pa.array(frame[name], kind)
                     for name, (kind, _) in COLUMNS.items()})


TABLE = one_table(Rows("m/t/ft/s1", "trajectory", 4), Rows("m/t/ft/s1", "geometry", 3, layer=1),
                  Rows("m/t/ft/s2", "trajectory", 2), Rows("m/pretrain", "trajectory", 1, step=-1),
                  Rows("m/pretrain", "geometry", 5), Rows("dynamics/m", "dynamics", 2, step=-1))


def test_slices_lead_to_the_rows_of_the_table() -> None:
    frame, seen = TABLE.to_pandas(), []
    for part in table_parts(TABLE, PLACES):
        columns, head = unpack(part.text)
        expected = 0
        for place, at, row, count in head["slices"]:
            assert at == expected and count > 0
            expected += count
            for i in range(count):
                found = frame.iloc[row + i]
                assert f"table/{found['lens']}" == part.name and found["place"] == PLACES[place]
                assert found["value"] == columns["value"][at + i] and found["step"] == columns["step"][at + i]
                assert found["quantity"] == head["texts"]["quantity"][columns["quantity"][at + i]]
                assert found["label"] == head["texts"]["label"][columns["label"][at + i]] == HOSTILE
                seen.append(row + i)
        assert expected == head["rows"]
    assert sorted(seen) == list(range(len(frame))), "every row once"


def test_a_part_per_lens_without_what_the_place_says() -> None:
    parts = list(table_parts(TABLE, PLACES))
    assert [part.name for part in parts] == ["table/trajectory", "table/geometry", "table/dynamics"]
    named = {"place", "model", "task", "method", "seed", "lens"}
    assert set(unpack(parts[0].text)[0]) == set(COLUMNS) - named
    assert [part.text for part in parts] == [part.text for part in table_parts(TABLE, PLACES)]


def test_an_empty_table_has_no_parts() -> None:
    assert list(table_parts(TABLE.slice(0, 0).unify_dictionaries(), PLACES)) == []
    assert lenses_over_steps(TABLE.slice(0, 0)) == []


def test_lenses_with_numbers_over_steps() -> None:
    assert lenses_over_steps(TABLE) == [{"name": "trajectory", "layers": False}, {"name": "geometry", "layers": True}]


def test_the_smallest_parts_lie_inside() -> None:
    parts = [Part("a", "x" * 50), Part("b", "x" * 10), Part("c", "x" * 30)]
    assert inside(parts, 100) == {"a", "b", "c"} and inside(parts, 89) == {"b", "c"} and inside(parts, 9) == set()
    assert inside([], 10) == set() and inside([Part("b", "x"), Part("a", "x")], 1) == {"a"}


def entry(seed: int, metrics: dict[str, dict[str, float]], **facts: object) -> Entry:
    of = replace(manifest("trajectory", "train", "x"), facts={"metric": "accuracy", **facts})
    return Entry(f"m_t_ft_s{seed}", "m", "t", "ft", seed, Path("outputs/m/t/ft"), of, metrics)


def place(metrics: dict[str, dict[str, float]]) -> Place:
    of = replace(manifest("trajectory", "pretrain", "m"), facts={})
    return Place("m/pretrain", Path("outputs/m/pretrain"), of, metrics)


def read(*found: Entry | Place, title: str = "t", **more: object) -> dict:
    return json.loads(study_json(title, "i", found, [("dynamics", "m")], {"t": {"majority": 0.5}}, **more))


def test_places_with_their_headline_numbers() -> None:
    study = read(entry(1, {"trajectory": {"validation/accuracy": 0.75, "steps": 40}, "infodynamics": {"slope": 0.5}}),
                 entry(2, {"trajectory": {"steps": 40}}), place({"trajectory": {"steps": 7, "checkpoints": 3}}))
    assert [one["name"] for one in study["places"]] == PLACES
    first, second, masked, shared = study["places"]
    assert first["numbers"] == {"trajectory/validation/metric": 0.75, "trajectory/steps": 40, "infodynamics/slope": 0.5,
                                "trajectory/validation/accuracy|validation/pearson|validation/micro_f1": 0.75}
    assert second["numbers"] == {"trajectory/steps": 40} and shared["numbers"] == {}
    assert masked["numbers"] == {"trajectory/steps": 7, "trajectory/checkpoints": 3}
    assert (first["cell"], first["page"], first["stage"]) == ("m/t/ft", "runs/m_t_ft_s1.html", "train")
    assert [masked[name] for name in ("kind", "cell", "method", "seed")] == ["masked", "m/pretrain", "pretrain", -1]
    kinds = {(one["kind"], one["name"]) for one in study["headlines"]}
    assert ("fine-tuning", "infodynamics/slope") in kinds and ("masked", "trajectory/checkpoints") in kinds
    assert ("masked", "trajectory/validation/accuracy") not in kinds, "a number that none has heads no column"
    assert study["baselines"] == {"t": {"majority": 0.5}}


def test_headline_numbers_name_their_rows() -> None:
    """The rows of the one table about the whole, by place, lens and quantity."""
    table = one_table(Rows("m/t/ft/s1", "trajectory", 2), Rows("m/t/ft/s1", "infodynamics", 2, step=-1),
                      Rows("m/t/ft/s2", "infodynamics", 1, step=-1))
    assert rows_about_the_whole(table) == {
        ("m/t/ft/s1", "infodynamics", "q0"): 2, ("m/t/ft/s1", "infodynamics", "q1"): 3,
        ("m/t/ft/s2", "infodynamics", "q0"): 4}
    names = pa.array(["slope" if name == "q1" else name for name in table.column("quantity").to_pylist()])
    at = table.schema.get_field_index("quantity")
    table = table.set_column(at, "quantity", names.dictionary_encode().cast(COLUMNS["quantity"][0]))
    found = [entry(seed, {"trajectory": {"steps": 4}, "infodynamics": {"slope": 0.5}}) for seed in (1, 2)]
    study = json.loads(study_json("t", "i", found, [], {}, table))
    assert [each["rows"] for each in study["places"]] == [{"trajectory/steps": [], "infodynamics/slope": [3]},
                                                         {"trajectory/steps": [], "infodynamics/slope": []}]


def test_headlines_say_what_the_lenses_declare() -> None:
    study = read(entry(1, {"trajectory": {"steps": 40}, "infodynamics": {"slope": 0.5}}, target="regression"))
    slope = next(one for one in study["headlines"] if one["name"] == "infodynamics/slope")
    assert (slope["heading"], slope["unit"], slope["digits"], slope["direction"]) == ("slope", "Pearson's r", 3, "")
    assert "z-scores" in slope["says"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_null(value: float) -> None:
    study = read(entry(1, {"trajectory": {"steps": value}}), more={"deep": [value, (1.0, value)]})
    assert study["places"][0]["numbers"] == {"trajectory/steps": None}
    assert study["more"] == {"deep": [None, [1.0, None]]}


class Scripts(HTMLParser):
    """The scripts of a page as a browser ends them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        self.found += [""] if self.inside else []

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data


def test_nothing_in_it_ends_a_script() -> None:
    one = entry(1, {"trajectory": {"steps": 1}}, train={HOSTILE: HOSTILE})
    text = study_json(HOSTILE, HOSTILE, [one], [(HOSTILE, HOSTILE)], {HOSTILE: {HOSTILE: 0.5}},
                      figures=[[HOSTILE, HOSTILE]], reports=[{"heading": HOSTILE, "html": HOSTILE}])
    assert "<" not in text
    scripts = Scripts(f'<script type="application/json">{text}</script><p>after</p>').found
    assert scripts == [text] and json.loads(scripts[0])["title"] == HOSTILE
    assert json.loads(text)["places"][0]["settings"][f"train.{HOSTILE}"] == HOSTILE
