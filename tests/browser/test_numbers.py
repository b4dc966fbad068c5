"""The numbers that the page shows are those of the table and of the library, wherever it shows them."""

import csv
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.atlas_study import FT, HOSTILE, LABELS, LP, STEPS, TASK
from tests.browser.conftest import Reader

from finetrace.atlas.paired import paired
from finetrace.layout import Layout

pytestmark = pytest.mark.browser
RANK = "geometry|effective_rank|2|validation||"
LOSS = "trajectory|loss|-1|validation||"
SHOWN = 5e-5
"""Relative error of five significant digits."""


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace(",", "").replace("−", "-"))


def course(frame: pd.DataFrame, place: str, quantity: str, layer: int = -1, split: str = "validation") -> pd.Series:
    """Step -> value, of all labels together."""
    rows = frame[(frame.place == place) & (frame.quantity == quantity) & (frame.layer == layer) & (frame.step >= 0)
                 & (frame.split == split) & (frame.label == "")]
    return rows.set_index("step").value


def saved(reader: Reader, button: str = "save as csv") -> list[list[str]]:
    with reader.page.expect_download() as waiting:
        reader.page.get_by_role("button", name=button).click()
    with Path(waiting.value.path()).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_point_says_the_value_of_the_table(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("timeline", q=RANK, by="name")
    for place in FT[:2]:
        of = course(frame, place, "effective_rank", 2)
        for step in STEPS[1:3]:
            text = reader.hover(0, step, of[step])
            said = re.search(r"([\d.,]+) at step ([\d,]+)", text)
            assert said and number(said[1]) == pytest.approx(of[step], rel=SHOWN) and number(said[2]) == step, text


def test_lines_of_cells_are_means_with_student_s_interval(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("timeline", q=RANK)
    values = np.stack([course(frame, place, "effective_rank", 2) for place in FT[:2]])
    line, band = reader.charts()[0]
    assert line["x"] == list(STEPS) and line["y"] == pytest.approx(values.mean(0), rel=1e-6)
    half = stats.t.ppf(0.975, 1) * values.std(0, ddof=1) / np.sqrt(2)
    assert band["y"][:4] == pytest.approx(values.mean(0) + half, rel=1e-4)
    assert band["y"][:3:-1] == pytest.approx(values.mean(0) - half, rel=1e-4)


def test_of_one_training_the_band_is_that_of_the_measurement(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("timeline", q=RANK, by="name")
    traces = reader.charts()[0]
    of = course(frame, FT[0], "effective_rank", 2).to_numpy()
    assert traces[1]["y"] == pytest.approx([*of + 1, *(of - 1)[::-1]], rel=1e-5)


def test_a_number_that_is_none_is_left_out(reader: Reader, frame: pd.DataFrame) -> None:
    of = course(frame, FT[0], "effective_rank", 0, "test")
    assert np.isnan(of[0])
    reader.open("timeline", q="geometry|effective_rank|0|test||", by="name")
    lines = {trace["name"]: trace for trace in reader.charts()[0] if trace["name"]}
    assert lines[FT[0]]["x"] == list(STEPS[1:]) and lines[FT[0]]["y"] == pytest.approx(of[1:].tolist(), rel=1e-6)


@pytest.mark.parametrize(("axis", "column"), [("examples", "examples"), ("tokens", "tokens"), ("epoch", "epoch")])
def test_the_other_axes(reader: Reader, frame: pd.DataFrame, axis: str, column: str) -> None:
    reader.open("timeline", q=LOSS, by="name", x=axis)
    rows = frame[(frame.place == LP) & (frame.quantity == "loss") & (frame.split == "validation")].dropna(subset=column)
    line = next(trace for trace in reader.charts()[0] if trace["name"] == LP)
    assert line["x"] == pytest.approx(rows[column].tolist(), rel=1e-6)


def test_a_logarithmic_axis_leaves_the_start_out(reader: Reader) -> None:
    reader.open("timeline", q=RANK, by="name", log="1", at="0")
    assert [trace["x"] for trace in reader.charts()[0] if trace["name"] in FT] == [list(STEPS[1:])] * 2


def test_a_panel_for_each_task_unless_asked_otherwise(reader: Reader, frame: pd.DataFrame) -> None:
    page = reader.open("timeline", q=LOSS, by="name").page
    told = [caption.partition(". ")[0] for caption in page.locator("figcaption").all_text_contents()]
    losses = frame[(frame.lens == "trajectory") & (frame.quantity == "loss") & (frame.split == "validation")
                   & (frame.step >= 0)]
    assert len(told) == losses.task.nunique() == len(reader.charts()) == 2
    assert [heading.partition("validation")[2] for heading in told] == [" on micro-sentiment", " in trainings on text"]
    for chart, (_, of_task) in zip(reader.charts(), losses.groupby("task", sort=False), strict=True):
        assert {trace["name"] for trace in chart if trace["name"]} == set(of_task.place)
    reader.open("timeline", q=LOSS, by="name", panels="apart")
    chart, = reader.charts()
    assert {trace["name"] for trace in chart if trace["name"]} == set(losses.place)


@pytest.mark.parametrize("panels", ["together", "scaled"])
def test_quantities_in_one_figure(reader: Reader, frame: pd.DataFrame, panels: str) -> None:
    reader.open("timeline", q=[RANK, LOSS], by="name", panels=panels, method="ft")
    chart, = reader.charts()
    of = course(frame, FT[0], "effective_rank", 2)
    shown = (of - of.min()) / (of.max() - of.min()) if panels == "scaled" else of
    assert len(chart) == 5 and chart[0]["y"] == pytest.approx(shown.tolist(), rel=1e-5, abs=1e-6)


def test_the_slider_moves_the_lines_and_the_table(reader: Reader, frame: pd.DataFrame) -> None:
    page = reader.open("timeline", q=[RANK, LOSS], by="name", method="ft").page
    steps = sorted({*STEPS, *course(frame, FT[0], "loss").index})
    slider = page.get_by_role("slider")
    assert slider.get_attribute("max") == str(len(steps) - 1) and slider.input_value() == str(len(steps) - 1)
    for at in (len(steps) // 2, 0):
        slider.fill(str(at))
        step = steps[at]
        assert page.locator("output").text_content() == f"step {step}"
        lines = page.evaluate("[...document.querySelectorAll('.plot')].map(box => box.marked)")
        assert lines == [step, step]
        assert page.evaluate("document.querySelectorAll('.plot .mark:not([hidden])').length") == 2
        rows = reader.table("Values at")
        for place in FT:
            for quantity, layer in (("effective_rank", 2), ("loss", -1)):
                of = course(frame, place, quantity, layer)
                row = [row for row in rows if row[1] == place and quantity in row[0]]
                if len(of):
                    last = max(one for one in of.index if one <= step)
                    assert number(row[0][2]) == pytest.approx(of[last], rel=SHOWN) and number(row[0][5]) == last
                else:
                    assert not row
        page.wait_for_function("step => location.hash.includes(`at=${step}`)", arg=step)


def test_the_timeline_as_csv(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("timeline", q="geometry|effective_rank|2|validation|*|", by="name")
    header, *rows = saved(reader)
    assert header == ["quantity", "line", "x", "step", "value", "low", "high", "n"]
    wanted = frame[(frame.quantity == "effective_rank") & (frame.layer == 2) & (frame.split == "validation")]
    assert len(rows) == len(wanted) == 2 * 3 * len(STEPS)
    known = {(", ".join([row.place, row.label]), row.step): row for row in wanted.itertuples()}
    for _, line, x, step, value, low, high, n in rows:
        row = known[line, int(step)]
        assert [float(value), float(low), float(high)] == pytest.approx([row.value, row.low, row.high], rel=1e-6)
        assert x == step and n == "1" and (HOSTILE in line) == (HOSTILE in row.label)


def row_of(reader: Reader) -> int:
    """The row that the dialog about a number names."""
    text = reader.page.locator("dialog code", has_text="iloc").text_content()
    return int(re.fullmatch(r'pd\.read_parquet\("atlas/table\.parquet"\)\.iloc\[(\d+)\]', text)[1])


def said(reader: Reader) -> dict[str, str]:
    names, values = (reader.page.locator(f"dialog {tag}").all_text_contents() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def test_the_dialog_names_the_row_of_a_number(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("timeline", q=[RANK, LOSS], by="name", at="20")
    buttons = reader.page.locator("td .plain")
    assert buttons.count() == 7
    for i, shown in enumerate(reader.table("Values at")):
        buttons.nth(i).click()
        row, told = frame.iloc[row_of(reader)], said(reader)
        assert number(shown[2]) == pytest.approx(row.value, rel=SHOWN) and row.place == shown[1] == told["place"]
        assert number(told["value"]) == pytest.approx(row.value, rel=5e-7) and row.step == number(shown[5])
        assert (told["lens"], told["quantity"], int(told["step"])) == (row.lens, row.quantity, row.step)
        reader.page.get_by_role("button", name="Close").click()


def test_a_click_on_a_point_opens_it(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("timeline", q=RANK, by="name", at="0")
    of = course(frame, FT[1], "effective_rank", 2)
    reader.hover(0, 20, of[20])
    reader.page.mouse.click(*reader.point(0, 20, of[20]))
    row = frame.iloc[row_of(reader)]
    assert (row.place, row.step, row.layer, row.value) == (FT[1], 20, 2, of[20])
    assert said(reader)["stage"] == f"geometry@{FT[1].replace('/', '_')}"
    assert "iloc" in said(reader)["row"] and FT[1].replace("/", "_") in said(reader)["in MLflow"]


def grid_of(frame: pd.DataFrame, place: str) -> np.ndarray:
    return np.stack([course(frame, place, "effective_rank", layer).to_numpy() for layer in range(3)])


def test_layers_are_those_of_the_table(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("layers", q="geometry|effective_rank|*|validation||", a=FT[0], b=FT[1], at="20")
    one, other = (grid_of(frame, place) for place in FT[:2])
    a, b, difference, profile, change = reader.charts()
    for chart, wanted in ((a, one), (b, other), (difference, other - one)):
        np.testing.assert_allclose(np.array(chart[0]["z"], float), wanted, rtol=1e-4)
        assert chart[0]["x"] == [str(step) for step in STEPS]
    assert [trace["name"] for trace in profile[:3]] == ["A, first: step 0", "A, chosen: step 20",
                                                             "A, last: step 40"]
    for trace, at in zip(profile[:3], (0, 2, 3), strict=True):
        assert trace["y"] == pytest.approx(one[:, at], rel=1e-6)
    assert change[1]["y"] == pytest.approx(other[:, 2] - other[:, 0], rel=1e-4)
    text = reader.hover(0, 2, 1)
    assert "layer 1, step 20" in text and number(text.split("\n")[1]) == pytest.approx(
        one[1, 2], rel=SHOWN)
    reader.page.mouse.click(*reader.point(1, 1, 2))
    row = frame.iloc[row_of(reader)]
    assert (row.place, row.layer, row.step, row.value) == (FT[1], 2, 10, other[2, 1])


def test_the_slider_of_layers(reader: Reader, frame: pd.DataFrame) -> None:
    reader.open("layers", q="geometry|effective_rank|*|validation||", a=FT[0])
    slider = reader.page.get_by_role("slider")
    slider.fill("1")
    assert reader.page.locator("output").text_content() == "step 10"
    assert reader.charts()[1][1]["y"] == pytest.approx(grid_of(frame, FT[0])[:, 1], rel=1e-6)


def test_overview_means_spreads_and_intervals(reader: Reader) -> None:
    page = reader.open("overview", lens="trajectory").page
    accuracies = {FT[0]: 0.9, FT[1]: 0.8, FT[2]: 0.7}
    rows = {row[0]: row for row in reader.table("fine-tunings")}
    assert rows[f"micro-a/{TASK}/ft"][1:3] == ["3", "0.800 ± 0.100"] and rows[LP][1:3] == ["1", "0.600"]
    page.get_by_role("button", name="0.800 ± 0.100").first.click()
    text = page.locator("dialog").inner_text()
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert f"mean 0.800, 95 % interval of the mean ± {half:.3f} (Student's t, n = 3)" in text
    listed = page.locator("dialog li").all_text_contents()
    assert [line.split()[:2] for line in listed] == [[place, f"{value:.3f}"] for place, value in accuracies.items()]
    assert listed[0].endswith("(best)") and listed[2].endswith("(worst)")
    page.keyboard.press("Escape")
    assert reader.page.locator("table").count() == 1
    means = next(trace for trace in reader.charts()[0] if trace["name"] == "mean")
    assert dict(zip(means["y"], means["x"], strict=True)) == pytest.approx(
        {f"micro-a/{TASK}/ft": 0.8, f"micro-a/{TASK}/lp": 0.6})


def test_a_list_of_who_taught_whose_examples_have_the_other_sign_says_so(reader: Reader) -> None:
    page = reader.open("taught", place=FT[0], example="7").page
    assert reader.table("lowered its loss most") and reader.table("lowered its loss least: none raised it")
    assert not page.get_by_text("Training examples that raised").count()
    reader.open("taught", place=FT[0], example="3")
    assert reader.table("raised its loss most") and not page.get_by_text("none raised it").count()


def test_who_taught_an_example_and_when(reader: Reader) -> None:
    page = reader.open("taught", place=FT[0], example="3").page
    assert page.locator("#taught").text_content() == f"{HOSTILE} asked 3 ({LABELS[0]})"
    for kind, sign in (("helpful", 1), ("harmful", -1)):
        rows = reader.table("lowered" if kind == "helpful" else "raised")
        assert [(row[0], row[4]) for row in rows] == [("1", "31"), ("2", "32")]
        assert all(row[1].startswith(f"<b>taught</b> {kind} 3.") and row[1].endswith("…") for row in rows)
        assert [number(row[3]) for row in rows] == [sign * 0.5, sign * 0.25]
    lines = {trace["name"]: trace for trace in reader.charts()[0]}
    assert lines["harmful 2"]["x"] == list(STEPS) and lines["harmful 2"]["y"] == [-0.0625] * len(STEPS)
    reader.choose("ranked by", "likeness of gradients after training")
    for kind, words, sign in (("alike", "most like", 1), ("opposed", "most opposed", -1)):
        rows = reader.table(words)
        assert all(row[1].startswith(f"<b>taught</b> {kind} 3.") for row in rows)
        assert [number(row[3]) for row in rows] == [sign * 0.25, sign * 0.125]
    assert "opposed 2" in {trace["name"] for trace in reader.charts()[0]}
    reader.choose("ranked by", "influence over the training")
    reader.choose("example", f"7: {HOSTILE} asked 7")
    assert "example=7" in page.url and reader.table("raised")[0][4] == "71"


def test_a_headline_number_names_its_row(reader: Reader, frame: pd.DataFrame) -> None:
    page = reader.open("overview", lens="trajectory").page
    page.get_by_role("button", name="0.800 ± 0.100").first.click()
    page.locator("dialog li").nth(1).get_by_role("button").click()
    row = frame.iloc[row_of(reader)]
    assert (row.place, row.lens, row.quantity, row.step, row.value) == (FT[1], "trajectory", "validation/accuracy", -1,
                                                                       0.8)
    reader.open("pair", a=FT[0], b=FT[1])
    page.locator("tr", has_text="trajectory: accuracy").locator(".plain").first.click()
    row = frame.iloc[row_of(reader)]
    assert (row.place, row.quantity, row.value) == (FT[0], "validation/accuracy", 0.9)


def test_any_setting_filters_and_groups(reader: Reader) -> None:
    page = reader.open("overview", lens="trajectory").page
    reader.choose("one row for", "each train.learning_rate")
    rows = reader.table("fine-tunings")
    assert [float(row[0]) for row in rows] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4])
    assert {row[1] for row in rows} == {"1"}
    reader.choose("filter by", "train.learning_rate")
    page.locator("summary", has_text="train.learning_rate").click()
    reader.redraws(page.get_by_label("0.0002", exact=True).check)
    assert [row[0] for row in reader.table("fine-tunings")] == ["0.0002"]
    reader.redraws(page.get_by_role("link", name="Timeline").click)
    reader.choose("a line for", "each train.learning_rate")
    assert {row[1] for row in reader.table("Values at")} == {"0.0002"}


def test_headings_sort(reader: Reader) -> None:
    page = reader.open("overview", lens="geometry", rows="place").page
    heading = page.get_by_role("button", name="rank, after")
    column = [text.strip() for text in page.locator("thead button").all_text_contents()].index("rank, after")
    for direction, way in (("ascending", 1), ("descending", -1)):
        heading.click()
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == direction
        cells = [row[column] for row in reader.table("fine-tunings")]
        known = [number(cell) for cell in cells if cell != "–"]
        assert known == sorted(known, reverse=way < 0) and len(known) == 2 and set(cells[2:]) <= {"–"}
    page.get_by_role("button", name="training", exact=True).click()
    names = [row[0] for row in reader.table("fine-tunings")]
    assert len(names) >= 2 and names == sorted(names), "what the lens has not measured has no row"


def test_numbers_that_are_none_are_sorted_to_the_end(reader: Reader) -> None:
    page = reader.open("timeline", q=[RANK, LOSS], by="name", at="20").page
    for _ in range(2):
        page.locator("thead button", has_text="low").click()
        lows = [row[3] for row in reader.table("Values at")]
        assert all(low != "–" for low in lows[:2]) and lows[2:] == ["–"] * 5, lows


PAIRS = [(*places, "validation") for places in combinations((*FT[:2], LP), 2)] + [(LP, FT[0], "validation"),
                                                                                 (FT[0], FT[2], "far")]


@pytest.mark.parametrize(("first", "second", "name"), PAIRS)
def test_a_and_b_are_compared_as_the_library_does(reader: Reader, layout: Layout, first: str, second: str,
                                                   name: str) -> None:
    wanted = paired(layout, first, second, TASK, name)
    page = reader.open("pair", a=first, b=second, set=name).page
    text = page.locator("#paired").text_content()
    found = re.fullmatch(r"(\d+) examples: accuracy (\S+) → (\S+), difference (\S+) \(95 %: (\S+) … (\S+)\)"
                         r"(?:; McNemar's exact p = (\S+))?\. Lost (\d+), won (\d+)\.", text)
    assert found, text
    n, *shares, p, lost, won = found.groups()
    assert [float(share) for share in shares] == pytest.approx(
        [wanted.first, wanted.second, wanted.difference, wanted.low, wanted.high], abs=5.0001e-4)
    assert (int(n), int(lost), int(won)) == (wanted.n, len(wanted.lost), len(wanted.won))
    assert p is None if np.isnan(wanted.p) else float(p) == pytest.approx(wanted.p, rel=SHOWN)
    for kind, examples in (("right in A, wrong in B", wanted.lost), ("wrong in A, right in B", wanted.won)):
        if kind not in page.locator("label.choice select").last.locator(":checked").text_content():
            reader.choose("show", kind)
        rows = reader.table(kind)
        assert [[int(row[0]), *row[1:5], int(row[6])] for row in rows] == [
            [one.example_id, one.text, one.label, one.first, one.second, one.flipped] for one in examples]
        assert page.locator(f'[aria-label="{kind}: {len(examples)} of {wanted.n}"]').count() == 1


def test_examples_as_csv(reader: Reader, layout: Layout) -> None:
    both = paired(layout, FT[0], FT[1], TASK, "validation")
    found = []
    for kind in ("lost", "won"):
        reader.open("pair", a=FT[0], b=FT[1], changed=kind)
        header, *rows = saved(reader)
        assert header == ["example", "text", "label", "A says", "B says", "A since step", "B since step"]
        assert rows == reader.table("wrong in")
        found += rows
    assert [row[1] for row in found] == [one.text for one in (*both.lost, *both.won)]


def test_settings_that_differ(reader: Reader) -> None:
    rows = {row[0]: row[1:] for row in reader.open("pair", a=FT[0], b=FT[1]).table("Settings that differ")}
    assert rows["seed"] == ["1", "2"] and rows["train.learning_rate"] == ["0.0001", "0.0002"]
    assert "train.note" not in rows and "task" not in rows
    reader.open("pair", a=FT[0].rpartition("/")[0], b=LP)
    rows = {row[0]: row[1:] for row in reader.table("Settings that differ")}
    assert rows["seed"] == ["1, 2, 3", "1"] and rows["method"] == ["ft", "lp"]


def test_headline_numbers_of_both(reader: Reader) -> None:
    rows = {row[0]: row for row in reader.open("pair", a=FT[0], b=FT[1]).table("Headline numbers")}
    assert rows["trajectory: accuracy"][1:5] == ["0.900", "0.800", "-0.100", "–"]
    cell = FT[0].rpartition("/")[0]
    rows = {row[0]: row for row in reader.open("pair", a=cell, b=cell).table("Headline numbers")}
    assert rows["trajectory: accuracy"][1:5] == ["0.800", "0.800", "0.000", "0.000 … 0.000"]
    assert reader.page.locator("#paired").count() == 0


def test_leads_are_those_of_the_table(reader: Reader, layout: Layout) -> None:
    leads = pd.read_parquet(layout.atlas / "courses/leads.parquet")
    cell = f"micro-a/{TASK}/ft"
    best = leads[(leads.cell == cell) & (leads.lag == leads.best_lag)]
    rows = reader.open("leads", cell=cell).table("All pairs")
    assert len(rows) == len(best) > 0
    found = {tuple(row[0].split(" | ")): row for row in rows}
    for one in best.itertuples():
        _, verdict, lag, correlation, *_ = found[one.first, one.second]
        assert (verdict, int(lag)) == (one.verdict, one.lag)
        assert number(correlation) == pytest.approx(one.correlation, abs=5.01e-3)


def test_figures_are_there(reader: Reader) -> None:
    page = reader.open("figures").page
    images = page.locator("main img")
    assert images.count() >= 3
    for i in range(images.count()):
        images.nth(i).scroll_into_view_if_needed()
        page.wait_for_function("i => document.querySelectorAll('main img')[i].naturalWidth > 0", arg=i)
        assert images.nth(i).get_attribute("alt")


def test_tables_of_the_studies(reader: Reader) -> None:
    page = reader.open("tables").page
    assert "finetrace table lp-ft" in page.locator("h2").first.text_content()
    assert page.locator(".report table td").count() > 0


def test_pages_of_trainings_lead_back(reader: Reader) -> None:
    page = reader.open("overview", rows="place").page
    page.get_by_role("link", name=FT[0]).click()
    assert page.locator("h1").text_content() == FT[0].replace("/", "_")
    page.get_by_role("link", name="atlas").click()
    reader.wait()
