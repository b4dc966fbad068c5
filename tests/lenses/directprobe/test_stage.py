"""The original hull-probe programs on their own inputs: the worked example file by file, batches, the command, clear
errors."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tests.hidden_outputs import load_script
from tests.oracles import directprobe_files as oracle
from tests.stages import ask

from finetrace.cli import main
from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.directprobe.settings import DirectprobeSettings
from finetrace.originals import directprobe_files as files
from finetrace.originals.directprobe import analyse, write_into
from finetrace.originals.directprobe_inputs import read_settings
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table

TEMPLATE = np.array([(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5), (0.25, 0.75), (0.75, 0.25), (0.5, 1.5)])
POINTS = np.vstack([TEMPLATE + np.array(move) for move in ((0, 0), (6, 0), (0, 8), (-6, 0))])
LABELS = "A" * 8 + "B" * 8 + "C" * 8 + "B" * 8
TEST = ((0.5, 2.5), (3.9, 0.5), (0.5, 7), (0.5, 0.5), (-3, 0.5))
CLUSTERS = "0\n" * 8 + "3\n" * 8 + "2\n" * 8 + "1\n" * 8  # as the original numbered them
DIS = "(0-A, 1-B): 5.0000\n(0-A, 2-C): 6.5000\n(0-A, 3-B): 5.0000\n(1-B, 2-C): 8.5147\n(2-C, 3-B): 8.5147\n"
PREDICTION = ("A\t0-A,1.0000\t2-C,5.5000\t1-B,5.7009\t3-B,5.7009\n"
              "B\t3-B,2.1000\t0-A,2.9000\t2-C,8.0411\t1-B,8.9000\n"
              "C\t2-C,1.0000\t0-A,5.5000\t1-B,8.1317\t3-B,8.1317\n"
              "C\t0-A,0.0000\t1-B,5.5000\t3-B,5.5000\t2-C,7.5000\n"
              "A\t1-B,2.0000\t0-A,3.0000\t2-C,8.0777\t3-B,9.0000\n")
LABEL_FILES = {"vec.txt": "A---B,5.0000\nA---C,6.5000\nB---C,8.5147\n",
               "outside_min.txt": "A,5.0000\nB,5.0000\nC,6.5000\n",
               "inside_max.txt": "A,1.5811\nB,1.5811\nC,1.5811\n", "inside_mean.txt": "A,0.8823\nB,0.8823\nC,0.8823\n"}
INI = """
[run]
output_path = results
[data]
common = data
label_set_path = ${common}/tags.txt
entities_path = ${common}/train.txt
embeddings_path = ${common}/train-vectors.txt
test_entities_path = ${common}/test.txt
test_embeddings_path = ${common}/test-vectors.txt
batch_embeddings_path = ${common}/batch
[clustering]
mode = MODE
probing_cluster_path = data/clusters.txt
enable_cuda = False
"""


def lines_of(points: object) -> str:
    return "".join(" ".join(map(str, row)) + "\n" for row in np.asarray(points).tolist())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The worked example in text files, with a batch of two checkpoints: layer l holds the vectors times l."""
    texts = {"tags.txt": "C\nB\nA\n", "train.txt": "".join(f"w{i}\t{label}\n" for i, label in enumerate(LABELS)),
             "train-vectors.txt": lines_of(POINTS), "test.txt": "".join(f"t\t{label}\n" for label in "ABCCA"),
             "test-vectors.txt": lines_of(TEST), "clusters.txt": CLUSTERS}
    texts |= {f"batch/{step}/{layer}.txt": lines_of(POINTS * layer) for step in (10, 5) for layer in range(1, 13)}
    for name, text in texts.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    (tmp_path / "config.ini").write_text(INI.replace("MODE", "probing"))
    return tmp_path


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text()


def test_the_worked_example_through_the_command_digit_for_digit(project: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directprobe", str(project / "config.ini"), "--mode", "prediction"]) == 0
    out = project / "results"
    expected = LABEL_FILES | {"clusters.txt": CLUSTERS, "dis.txt": DIS, "prediction.txt": PREDICTION}
    assert {name: read(out, name) for name in expected} == expected
    metrics = json.loads(read(out, "metrics.json"))
    for name, value in {"cluster_distance_min": 5, "cluster_distance_max": 8.514693183,
                        "cluster_distance_mean": 6.705877134,
                        "ratio_max": 0.291902565, "ratio_mean": 0.162880803, "intra_accuracy": 0.6, "clusters": 4,
                        "labels": 3, "linear": 0, "outside_min_least": 5}.items():
        assert metrics[name] == pytest.approx(value, rel=1e-7), name  # the original's solver is some 2e-8 low
    shown = capsys.readouterr().out
    assert "cluster_distance_mean" in shown and "6.70587727" in shown and f"written: {out}" in shown


def test_probing_finds_these_clusters_and_writes_the_same_but_for_the_numbers_of_tied_ones(project: Path) -> None:
    assert main(["directprobe", str(project / "config.ini"), "--out", str(project / "new")]) == 0
    out = project / "new"
    numbers = files.read_clusters(out / "clusters.txt")
    assert [len(set(numbers[i:i + 8])) for i in (0, 8, 16, 24)] == [1] * 4 and len(set(numbers)) == 4
    assert {name: read(out, name) for name in LABEL_FILES} == LABEL_FILES
    original = {number: int(CLUSTERS.split()[row]) for row, number in enumerate(numbers.tolist())}
    for found, expected in zip(oracle.read_prediction(out / "prediction.txt"),
                               ([line.split("\t") for line in PREDICTION.splitlines()]), strict=True):
        assert [found[0], *sorted(f"{original[k]}-{label},{d:.4f}" for k, label, d in found[1])] == [
            expected[0], *sorted(expected[1:])]
    distances = oracle.read_distances(out / "dis.txt")
    assert {frozenset((original[a], original[b])): d for ((a, _), (b, _)), d in distances.items()} == {
        frozenset(map(int, (line[1], line[6]))): float(line.split()[-1]) for line in DIS.splitlines()}


def test_clusters_are_numbered_as_they_came_to_be_or_by_row(project: Path) -> None:
    (project / "data/train.txt").write_text("".join(f"w\t{label}\n" for label in "AABB"))
    (project / "data/train-vectors.txt").write_text("0 0\n5 0\n0 9\n1 9\n")  # B unites first
    (project / "data/test.txt").unlink()
    (project / "config.ini").write_text(INI.replace("test_entities_path = ${common}/test.txt", "").replace("MODE",
                                                                                                           "probing"))
    for numbering, expected in (("creation", "1\n1\n0\n0\n"), ("row", "0\n0\n1\n1\n")):
        out = project / numbering
        result = write_into(out, read_settings(project / "config.ini"), numbering=numbering, min_size=1)
        assert read(out, "clusters.txt") == expected and result.metrics["linear"] == 1
        assert not (out / "prediction.txt").exists()
        assert read(out, "vec.txt") == "A---B,9.0000\nA---C,0.0000\nB---C,0.0000\n"  # C has no examples: 0 in text


def test_small_clusters_are_left_out_of_label_distances_and_zero_in_text_only(project: Path) -> None:
    (project / "data/train.txt").write_text("".join(f"w\t{label}\n" for label in "AAAAAABBBBB"))
    (project / "data/train-vectors.txt").write_text("".join(f"{i} 0\n" for i in (0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13)))
    out = project / "new"
    assert main(["directprobe", str(project / "config.ini"), "--out", str(out)]) == 0
    assert read(out, "dis.txt") == "(0-B, 1-A): 4.0000\n"  # the label that was whole first
    assert read(out, "outside_min.txt") == "A,0.0000\nB,0.0000\nC,0.0000\n"
    assert read(out, "inside_max.txt") == "A,5.0000\nB,0.0000\nC,0.0000\n"
    table = read_table(out / "table.parquet").to_pylist()
    found = {(r["statistic"], r["label"]): r["value"] for r in table
             if r["statistic"] in ("outside_min", "clusters_kept")}
    assert np.isnan(found["outside_min", "A"]) and found["clusters_kept", ""] == 1
    assert main(["directprobe", str(project / "config.ini"), "--out", str(project / "all"), "--min-size", "1"]) == 0
    assert read(project / "all", "outside_min.txt") == "A,4.0000\nB,4.0000\nC,0.0000\n"


def test_a_batch_scales_with_its_layers(project: Path) -> None:
    assert main(["directprobe", str(project / "config.ini"), "--mode", "batch_probing"]) == 0
    out = project / "results"
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["batch_vec", "inside_max", "inside_mean",
                                                                   "outside_min"]
    for step in ("5", "10"):
        lines = read(out, f"batch_vec/{step}.txt").splitlines()
        assert lines[0] == " ,1,2,3,4,5,6,7,8,9,10,11,12"
        assert lines[1] == "A---B," + ",".join(f"{5 * k:.4f}" for k in range(1, 13))
        means = ",".join(f"{0.882271004 * k:.4f}" for k in range(1, 13))
        assert read(out, f"inside_mean/{step}.txt").splitlines()[1] == f"A,{means}"
    table = read_table(out / "table.parquet").to_pylist()
    assert list(dict.fromkeys((r["iteration"], r["step"]) for r in table)) == [("5", 5),
                                                                               ("10", 10)]  # by number, not as listed
    found = {r["layer"]: r["value"] for r in table if r["step"] == 5 and r["statistic"] == "distance"
             and r["other"] == "C"
             and r["label"] == "B"}
    assert found == pytest.approx({k: 8.514693183 * k for k in range(1, 13)}, abs=1e-7)
    assert json.loads(read(out, "metrics.json"))["outside_min_least/layer-12/last"] == pytest.approx(60)


def test_a_batch_may_lack_layers_and_overlapping_spaces_are_zero_in_text_and_nan_in_the_table(project: Path) -> None:
    shutil.rmtree(project / "data/batch")
    (project / "data/batch/last").mkdir(parents=True)
    mixed = POINTS.copy()
    mixed[16:24] -= (0, 8)  # C lies where A is
    (project / "data/batch/last/3.txt").write_text(lines_of(mixed))
    (project / "data/batch/last/7.txt").write_text(lines_of(POINTS))
    result = analyse(read_settings(project / "config.ini"), project / "out", mode="batch_probing")
    assert read(project / "out", "batch_vec/last.txt").splitlines()[:2] == [" ,3,7", "A---B,0.0000,5.0000"]
    assert read(project / "out", "inside_max/last.txt").splitlines()[1] == "A,0.0000,1.5811"
    assert result.metrics["disjoint/layer-03/last"] == 0 and result.metrics["disjoint/layer-07/last"] == 1
    assert result.metrics["spaces_disjoint"] == 1 and np.isnan(result.metrics["outside_min_mean/layer-03/last"])
    table = result.table.frame
    here = (table["layer"] == 3) & (table["statistic"] == "outside_min")
    assert here.sum() == 3 and np.isnan(table["value"][here]).all()
    assert not (table["statistic"][table["layer"] == 3] == "distance").any()


def test_results_are_never_written_over(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "results").mkdir()
    assert main(["directprobe", str(project / "config.ini")]) == 0  # empty: as good as absent
    before = {path.name: path.read_bytes() for path in (project / "results").iterdir()}
    assert main(["directprobe", str(project / "config.ini")]) == 1
    assert "results: is not empty, and nothing is overwritten" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (project / "results").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "text", "mode", "message"),
    [
        ("train-vectors.txt", None, "probing", "train-vectors.txt: no such file"),
        ("train-vectors.txt", "1 2\n", "probing", "train-vectors.txt: has 1 vectors for 32 entities"),
        ("train.txt", "word A\n", "probing", "train.txt line 1: 'word A' is not text<TAB>label"),
        ("train.txt", "", "batch_probing", "train.txt: has no examples"),
        ("test-vectors.txt", "1\n" * 5, "prediction",
         "test-vectors.txt: has 5 vectors of 1 numbers; those of training have 2"),
        ("test-vectors.txt", "1 x\n" * 5, "prediction",
         "test-vectors.txt line 1: holds something that is not a number"),
        ("clusters.txt", "0\n1\n", "prediction", "clusters.txt: has 2 lines for 32 points"),
        ("clusters.txt", "0\n" * 32, "prediction", "clusters.txt: cluster 0 has points of more than one label"),
        ("clusters.txt", CLUSTERS.replace("3", "7"), "batch_probing", "clusters.txt: cluster numbers must be 0"),
        ("batch/5/7.txt", "1 2 3\n" * 32, "batch_probing",
         "5/7.txt: has vectors of 3 numbers, the files before have 2"),
        ("batch/10/1.txt", "1 2\n", "batch_probing", "10/1.txt: has 1 vectors for 32 entities"),
    ],
)
def test_unusable_inputs_are_refused_and_leave_nothing(project: Path, capsys: pytest.CaptureFixture[str], name: str,
                                                       text: str | None, mode: str, message: str) -> None:
    path = project / "data" / name
    path.unlink() if text is None else path.write_text(text)
    assert main(["directprobe", str(project / "config.ini"), "--mode", mode]) == 1
    assert message in capsys.readouterr().err
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    ("line", "mode", "message"),
    [
        ("embeddings_path = ${common}/train-vectors.txt", "probing",
         r"probing needs embeddings_path; add it to \[data\]"),
        ("test_embeddings_path = ${common}/test-vectors.txt", "probing",
         "test_entities_path needs test_embeddings_path"),
        ("probing_cluster_path = data/clusters.txt", "prediction",
         r"prediction needs probing_cluster_path; .* \[clustering\]"),
        ("probing_cluster_path = data/clusters.txt", "batch_probing", "batch_probing needs probing_cluster_path"),
        ("batch_embeddings_path = ${common}/batch", "batch_probing", "batch_probing needs batch_embeddings_path"),
    ],
)
def test_what_a_mode_needs_is_named(project: Path, line: str, mode: str, message: str) -> None:
    text = INI.replace("MODE", mode)
    (project / "config.ini").write_text("\n".join(row for row in text.splitlines() if row != line))
    with pytest.raises(FinetraceError, match=message):
        analyse(read_settings(project / "config.ini"), project / "out")


# --- the stage ----------------------------------------------------------------------------------------------------


def stage(root: Path, **entry: object) -> Stage:
    settings = parse(DirectprobeSettings, {"config": "config.ini", "inputs": "data", **entry},
                     "params.yaml: directprobe.old")
    ask(root, "directprobe", "old", directprobe=asdict(settings))
    return open_stage("directprobe", "old", Layout(root, root))


@pytest.mark.parametrize(("mode", "names", "figure"), [
    ("probing", {"clusters.txt", "dis.txt", "prediction.txt", *LABEL_FILES}, "labels.png"),
    ("batch_probing", {"batch_vec", "inside_max", "inside_mean", "outside_min"}, "layers.png")])
def test_the_stage_writes_the_original_files_beside_table_metrics_and_figures(project: Path, mode: str, names: set,
                                                                              figure: str) -> None:
    load_script("directprobe").main(stage(project, mode=mode))
    out = project / "directprobe" / "old"
    assert {p.name for p in out.iterdir()} == names | {"table.parquet", "metrics.json", "measured.npz", "manifest.json",
                                                       "provenance.json", "cost.json", "figures"}
    assert [p.name for p in (out / "figures").glob("*.png")] == [figure]
    assert (out / "figures" / figure).read_bytes().startswith(b"\x89PNG")
    manifest = read_manifest(out)
    assert manifest.kind == "lens" and set(manifest.inputs) == {"config.ini", "data"} and manifest.facts["mode"] == mode
    kinds = {column.name: str(column.type) for column in read_table(out / "table.parquet").schema}
    assert kinds == {"step": "int64", "layer": "int32", "statistic": "string", "value": "double", "low": "double",
                     "high": "double", "n": "int64", "iteration": "string", "label": "string", "other": "string"}


@pytest.mark.parametrize("mode", ["probing", "batch_probing"])
def test_figures_are_drawn_from_the_stored_measurement(project: Path, mode: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    first = stage(project, mode=mode)
    load_script("directprobe").main(first)
    out = project / "directprobe" / "old"
    whole = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()
             and (p.parent.name != "figures" or p.suffix == ".png")}
    ask(project, "directprobe", "old", draw="another", **first.asked)
    shutil.rmtree(out)
    monkeypatch.setattr("finetrace.originals.directprobe.analyse", lambda *rest, **more: 1 / 0)
    load_script("directprobe").main(open_stage("directprobe", "old", first.layout))
    assert len(whole) > 8 and {p: p.read_bytes() for p in whole} == whole


def test_data_outside_the_watched_folder_is_refused(project: Path) -> None:
    (project / "elsewhere").mkdir()
    for inputs, message in (("elsewhere", r"old.inputs: label_set_path of the INI, .* does not lie in"),
                            ("nowhere", "nowhere is not a folder")):
        with pytest.raises(FinetraceError, match=message):
            load_script("directprobe").main(stage(project, inputs=inputs))


@pytest.mark.parametrize(("entry", "message"), [
    ({"config": ""}, "config: name an INI file"), ({"inputs": ""}, "inputs: name the folder"),
    ({"inputs": "directprobe/old"}, "lies in directprobe/"), ({"min_size": 0}, "min_size: 0 is less than 1"),
    ({"mode": "guess"}, "mode"), ({"numbering": "size"}, "numbering")])
def test_wrong_settings_are_refused(entry: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(DirectprobeSettings, {"config": "a.ini", "inputs": "data", **entry}, "params.yaml: directprobe.old")
