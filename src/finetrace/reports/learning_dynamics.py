"""The tables of learning dynamics, in the spirit of Zertuche and Liu (2021), "How does BERT learn?", from a study's
outputs.

Reads the tables of the stage dynamics; writes nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.dynamics.report import full_mix, headlines, layers_of, phenomena_of, readouts_of
from finetrace.lenses.dynamics.table import ARMS, DIFFERENCES, UNION, Course, Key, Table
from finetrace.lenses.pairs.summary import AGE
from finetrace.reports import markdown
from finetrace.reports.markdown import NONE
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table
from finetrace.study import Study

WHEN = ("what", "first", "last", "90 % of the gain at step", "interpolated [95 % interval]", "area under the curve")
KEPT = ("corpus, read-out", "step", "last layer", "any layer", "control, last layer", "control, any layer")
CHANGES = ("what", "step", "original", "adapted", "control", "adapted - original", "p", "control - original",
           "adapted - control")


def tables(layout: Layout, study: Study, *, last: bool = False) -> str:
    """All tables as Markdown: when things are learned; probes of words, facts and downstream tasks by step; adapted,
    original and control; and what is missing.

    last: only the last step instead of all. Scores in %; cells without outputs are `-`. Raises FinetraceError for a
    study without the section dynamics.
    """
    if not study.dynamics:
        raise FinetraceError("params.yaml: the section dynamics is empty; add an entry that names trajectories")
    parts, missing = [], []
    for name in study.dynamics:
        folder = layout.dynamics(name)
        if not (folder / "manifest.json").is_file():
            missing.append(f"dvc repro dynamics@{name}")
            continue
        facts = read_manifest(folder).facts
        table = Table.of_columns(read_table(folder / "table.parquet").to_pydict())
        heading = f"{name}: " if len(study.dynamics) > 1 else ""
        parts += [f"**{heading}{title}**\n\n{body}"
                  for title, body in _parts(table, last, str(facts["axes"]["original"]))]
        parts.append(_legend(facts))
    if missing:
        parts.append("Missing:\n" + "\n".join(f"- {line}" for line in missing))
    return "\n\n".join(parts) + "\n"


def _parts(table: Table, last: bool, axis: str) -> list[tuple[str, str]]:
    """Titles and tables of one entry; what nothing is known of is left out."""
    parts = [(f"When it is learned ({axis})", markdown.table(WHEN, _gain_rows(table)))]
    if tasks := table.items_of("edges"):
        parts += [("Words probed, F1 in %: all layers mixed / best layer (which) / last layer",
                   _scores(table, tasks, last)),
                  ("Words probed: centre of gravity; expected layer", _layers(table, tasks, last))]
    for corpus in table.items_of("cloze"):
        parts += [(f"Facts of {corpus}, read-out {readout}: P@1 / P@10 in % by layer",
                   _facts(table, corpus, readout, last))
                  for readout in readouts_of(table, corpus)]
    parts += [(f"Minimal pairs of {name}: accuracy in % by phenomenon, and the step at which it is acquired [95 % "
               "interval]", _pairs(table, name, last)) for name in table.items_of("pairs")]
    if tasks := table.items_of("downstream"):
        title = "Learned downstream: accuracy in % [95 % interval], original; adapted; control"
        parts.append((title, _downstream(table, tasks, last)))
    if changes := _change_rows(table, last):
        title = "Adapted, original and control, in %; differences in points [95 % interval]"
        parts.append((title, markdown.table(CHANGES, changes)))
    if kept_rows := _kept_rows(table, last):
        title = "Facts that adaptation kept / lost / learned, P@1, in % of all facts"
        parts.append((title, markdown.table(KEPT, kept_rows)))
    return parts


def _gain_rows(table: Table) -> list[list[str]]:
    """First and last score, step of the gain with its interval, area, of every headline."""
    rows = []
    for name, key in headlines(table):
        course = table.course(key)
        recorded, between, area = (table.get(key._replace(statistic=f"{key.statistic}_{statistic}"))
                                   for statistic in ("step_90", "step_90_interpolated", "area"))
        rows.append([f"{name.partition('/')[2]} ({key.statistic})", _percent(course.value[0]),
                     _percent(course.value[-1]), NONE if recorded is None else f"{recorded.value[-1]:,.0f}",
                     NONE if between is None else f"{between.value[-1]:,.0f}{_ends(between, 1, ',.0f')}",
                     NONE if area is None else _percent(area.value[-1])])
    return rows


def _scores(table: Table, tasks: Sequence[str], last: bool) -> str:
    """Rows are steps, columns tasks."""
    def cell(task: str, step: int) -> str:
        single = {layer: _number_at(course, step)
                  for layer, course in layers_of(table, "edges", task, "f1", "layer").items()}
        finite = {layer: value for layer, value in single.items() if np.isfinite(value)}
        best = max(finite, key=lambda layer: finite[layer], default=None)
        return " / ".join((_percent(_number_at(full_mix(table, task), step)),
                           NONE if best is None else f"{_percent(finite[best])} ({best})",
                           _percent(single[max(single)]) if single else NONE))

    return _by_step(table, "edges", tasks, last, cell)


def _layers(table: Table, tasks: Sequence[str], last: bool) -> str:
    def cell(task: str, step: int) -> str:
        expected = next((course for _, course in table.select(source="edges", item=task, arm="original",
                                                              statistic="expected_layer")), None)
        return "; ".join(f"{value:.2f}" if np.isfinite(value) else NONE
                         for value in (_number_at(full_mix(table, task, statistic="cog"), step),
                                       _number_at(expected, step)))

    return _by_step(table, "edges", tasks, last, cell)


def _facts(table: Table, corpus: str, readout: str, last: bool) -> str:
    """Rows are steps, columns layers; then what any layer knows and the held-out facts in the last layer."""
    layers = list(layers_of(table, "cloze", corpus, "p_at_1", readout))
    columns = {str(layer): Key("cloze", corpus, "original", "", readout, layer) for layer in layers}
    columns["any layer"] = Key("cloze", corpus, "original", "", readout, UNION)
    columns["held-out facts"] = Key("cloze", corpus, "original", "", readout, layers[-1], held_out=True)

    def cell(column: str, step: int) -> str:
        values = [_percent(_number_at(table.get(columns[column]._replace(statistic=name)), step))
                  for name in ("p_at_1", "p_at_10")]
        return NONE if set(values) == {NONE} else " / ".join(values)

    steps = _steps(table, [("cloze", corpus)], last, readout)
    shown = [name for name in columns if any(cell(name, step) != NONE for step in steps)]
    return markdown.table(("step", *shown), [[f"{step:,}", *(cell(name, step) for name in shown)] for step in steps])


def _pairs(table: Table, name: str, last: bool) -> str:
    """Rows are steps, then the ages of acquisition; columns the whole set, its phenomena, the control."""
    all_pairs = Key("pairs", name, "original", "accuracy")
    columns = {"all": all_pairs} | {key.relation: key for key in phenomena_of(table, name)}
    columns |= {"control": all_pairs._replace(held_out=True)}
    columns = {label: key for label, key in columns.items() if table.get(key) is not None}
    rows = [[f"{step:,}", *(_percent(_number_at(table.get(key), step)) for key in columns.values())]
            for step in _steps(table, [("pairs", name)], last)]
    ages = [table.get(key._replace(statistic=AGE)) for key in columns.values()]
    rows.append(["acquired", *(NONE if age is None else f"{age.value[-1]:,.0f}{_ends(age, 1, ',.0f')}"
                               for age in ages)])
    return markdown.table(("step", *columns), rows)


def _downstream(table: Table, tasks: Sequence[str], last: bool) -> str:
    def cell(task: str, step: int) -> str:
        if step < 0:
            majority = table.get(Key("downstream", task, "original", "majority"))
            return NONE if majority is None else _percent(majority.value[-1])
        courses = [table.get(Key("downstream", task, arm, "accuracy")) for arm in ARMS]
        return "; ".join(_percent(_number_at(course, step)) + ("" if course is None else _ends_at(course, step))
                         for number, course in enumerate(courses) if number == 0 or course is not None)

    steps = _steps(table, [("downstream", task) for task in tasks], last)
    rows = [[f"{step:,}", *(cell(task, step) for task in tasks)] for step in steps]
    return markdown.table(("step", *tasks), [*rows, ["majority class", *(cell(task, -1) for task in tasks)]])


def _change_rows(table: Table, last: bool) -> list[list[str]]:
    """A row per headline and compared step; the original stands at the step that it is compared at."""
    rows = []
    for name, key in headlines(table):
        parts = {arm: table.get(key._replace(arm=arm)) for arm in (*ARMS[1:], *DIFFERENCES)}
        compared = parts["difference"] or parts["control-difference"]
        if compared is None:
            continue
        for step in compared.steps[-1 if last else 0:]:
            adapted, change = _number_at(parts["adapted"], step), _number_at(parts["difference"], step)
            control, other = _number_at(parts["control"], step), _number_at(parts["control-difference"], step)
            original = adapted - change if np.isfinite(change) else control - other
            p = _number_at(parts["difference"], step, "p")
            rows.append([name.partition("/")[2], f"{step:,}", *(_percent(v) for v in (original, adapted, control)),
                         _points(parts["difference"], step), f"{p:.3f}" if np.isfinite(p) else NONE,
                         _points(parts["control-difference"], step), _points(parts["net-difference"], step)])
    return rows


def _kept_rows(table: Table, last: bool) -> list[list[str]]:
    """Facts kept, lost and learned from the original to the adapted and the control model; a row per corpus, readout
    and step."""
    rows = []
    for corpus in table.items_of("cloze"):
        for readout in readouts_of(table, corpus):
            layers = list(layers_of(table, "cloze", corpus, "p_at_1", readout))
            keys = [Key("cloze", corpus, arm, "", readout, layer) for arm in ("difference", "control-difference")
                    for layer in (layers[-1], UNION)]
            steps = sorted({int(step) for key in keys
                            if (course := table.get(key._replace(statistic="kept"))) is not None
                            for step in course.steps})
            for step in steps[-1 if last else 0:]:
                shares = [[_percent(_number_at(table.get(key._replace(statistic=name)), step))
                           for name in ("kept", "lost", "learned")]
                          for key in keys]
                cells = [NONE if set(cell_shares) == {NONE} else " / ".join(cell_shares) for cell_shares in shares]
                rows.append([f"{corpus}, {readout}", f"{step:,}", *cells])
    return rows


def _by_step(table: Table, source: str, items: Sequence[str], last: bool, cell: Callable[[str, int], str]) -> str:
    steps = _steps(table, [(source, item) for item in items], last)
    return markdown.table(("step", *items), [[f"{step:,}", *(cell(item, step) for item in items)] for step in steps])


def _steps(table: Table, items: Sequence[tuple[str, str]], last: bool, readout: str | None = None) -> list[int]:
    """Steps of the original's scores; with `last` only the last."""
    steps = sorted({int(step) for source, item in items
                    for key, course in table.select(source=source, item=item, arm="original")
                    if key.statistic in ("f1", "p_at_1", "accuracy") and readout in (None, key.readout)
                    for step in course.steps})
    return steps[-1:] if last else steps


def _number_at(course: Course | None, step: int, field: str = "value") -> float:
    """A number of a course at a step; NaN where there is none."""
    if course is None or step not in course.steps:
        return np.nan
    return float(getattr(course, field)[list(course.steps).index(step)])


def _ends(course: Course, factor: float, form: str) -> str:
    _, low, high = course.last
    return f" [{factor * low:{form}}, {factor * high:{form}}]" if np.isfinite([low, high]).all() else ""


def _ends_at(course: Course, step: int) -> str:
    low, high = (100 * _number_at(course, step, field) for field in ("low", "high"))
    return f" [{low:.1f}, {high:.1f}]" if np.isfinite([low, high]).all() else ""


def _points(course: Course | None, step: int) -> str:
    value, low, high = (100 * _number_at(course, step, field) for field in ("value", "low", "high"))
    if not np.isfinite(value):
        return NONE
    return f"{value:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if np.isfinite([low, high]).all() else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if np.isfinite(share) else NONE


def _legend(facts: dict) -> str:
    """What the numbers are about, in sentences."""
    trajectories = len(facts["arms"]["original"])
    single = "One trajectory per arm: intervals are about examples and say nothing of other trainings."
    text = [f"Means over {trajectories} trajectories; intervals are about seeds and examples." if trajectories > 1
            else single,
            "Best layer: on the same examples that are scored. P@k of a corpus: mean over its relations; any layer: "
            "known in one of the layers but the embeddings. p: one-sided, share of resamplings in which the "
            "difference has another sign."]
    if later := {axis for arm, axis in facts["axes"].items() if arm != "original"} - {facts["axes"]["original"]}:
        text.append(f"Steps of adapted and control are {', '.join(sorted(later))}, compared with the original's last "
                    "checkpoint.")
    if facts["identical_rows"]:
        text.append(f"Warning: {facts['identical_rows']} pairs of trajectories have the same results at a step, so "
                    f"they are no second measurement: {'; '.join(facts['identical'][:3])}.")
    if facts["left_out"]:
        text.append(f"Left out: {'; '.join(facts['left_out'][:3])}{'; ...' if len(facts['left_out']) > 3 else ''}.")
    return " ".join(text)
