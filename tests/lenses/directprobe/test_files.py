"""Files of the original hull-probe programs: the worked example byte by byte, round trips, and errors that name file
and line."""

from pathlib import Path

import numpy as np
import pytest
from tests.oracles import directprobe_files as oracle

from finetrace.errors import FinetraceError
from finetrace.lenses.hulls.distances import cluster_distances, label_distances, predict
from finetrace.lenses.hulls.partition import probe, renumbered
from finetrace.originals import directprobe_files as files
from finetrace.originals import directprobe_inputs as inputs

TEMPLATE = np.array([(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5), (0.25, 0.75), (0.75, 0.25), (0.5, 1.5)])
POINTS = np.vstack([TEMPLATE + np.array(move) for move in ((0, 0), (6, 0), (0, 8), (-6, 0))])
LABELS = list("A" * 8 + "B" * 8 + "C" * 8 + "B" * 8)
TEST = np.array([(0.5, 2.5), (3.9, 0.5), (0.5, 7), (0.5, 0.5), (-3, 0.5)])
SETTINGS = """
[run]
output_path = results
comments = a trial
[data]
common = data
label_set_path = ${common}/labels/tags.txt
entities_path = ${common}/entities/train.txt
embeddings_path = ${common}/embeddings/train.txt
test_entities_path =
[clustering]
enable_cuda = False
rate = 0.05
mode = probing
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The worked example as the original programs read it."""
    for name, text in {
        "config.ini": SETTINGS,
        "data/labels/tags.txt": "C\nB\nA\nB\n",
        "data/entities/train.txt": "".join(f"word {i}\t{label}\n" for i, label in enumerate(LABELS)),
        "data/embeddings/train.txt": "".join(" ".join(map(str, row)) + "\n" for row in POINTS.tolist()),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_old_data_in_and_the_2021_program_s_files_out(project: Path) -> None:
    settings = inputs.read_settings(project / "config.ini")
    labels = inputs.read_labels(settings.label_set_path)
    examples = inputs.read_examples(settings.entities_path, settings.embeddings_path, labels)
    assert labels == ["A", "B", "C"] and examples.texts[3] == "word 3" and examples.points.dtype == np.float32
    found = renumbered(probe(examples.points, examples.labels, classes=labels),
                       [0, 3, 2, 1])  # the original's order of creation

    files.write_clusters(project / "clusters.txt", found.assignment)
    assert (project / "clusters.txt").read_text() == "0\n" * 8 + "3\n" * 8 + "2\n" * 8 + "1\n" * 8
    files.write_distances(project / "dis.txt", found.cluster_labels, cluster_distances(found))
    assert (project / "dis.txt").read_text() == (
        "(0-A, 1-B): 5.0000\n(0-A, 2-C): 6.5000\n(0-A, 3-B): 5.0000\n(1-B, 2-C): 8.5147\n(2-C, 3-B): 8.5147\n"
    )
    gold = list("ABCCA")
    ranked = predict(found, TEST, gold)
    files.write_prediction(project / "prediction.txt", gold, ranked.order, ranked.distances, found.cluster_labels)
    assert (project / "prediction.txt").read_text() == (
        "A\t0-A,1.0000\t2-C,5.5000\t1-B,5.7009\t3-B,5.7009\n"
        "B\t3-B,2.1000\t0-A,2.9000\t2-C,8.0411\t1-B,8.9000\n"
        "C\t2-C,1.0000\t0-A,5.5000\t1-B,8.1317\t3-B,8.1317\n"
        "C\t0-A,0.0000\t1-B,5.5000\t3-B,5.5000\t2-C,7.5000\n"
        "A\t1-B,2.0000\t0-A,3.0000\t2-C,8.0777\t3-B,9.0000\n"
    )


def test_the_2022_program_s_files(project: Path) -> None:
    found = label_distances(probe(POINTS, LABELS), min_size=6, reduce="mean", missing="zero")
    files.write_label_pairs(project / "vec.txt", found.classes, found.vector)
    assert (project / "vec.txt").read_text() == "A---B,5.0000\nA---C,6.5000\nB---C,8.5147\n"
    for name, values, text in (
        ("outside_min", found.outside_min, "A,5.0000\nB,5.0000\nC,6.5000\n"),
        ("inside_max", found.inside_max, "A,1.5811\nB,1.5811\nC,1.5811\n"),
        ("inside_mean", found.inside_mean, "A,0.8823\nB,0.8823\nC,0.8823\n"),
    ):
        files.write_label_values(project / f"{name}.txt", found.classes, values)
        assert (project / f"{name}.txt").read_text() == text
        assert oracle.read_label_values(project / f"{name}.txt") == pytest.approx(dict(zip("ABC", values, strict=True)),
                                                                                  abs=5e-5)
    assert oracle.read_label_pairs(project / "vec.txt") == {("A", "B"): 5, ("A", "C"): 6.5, ("B", "C"): 8.5147}


def test_batch_tables_of_twelve_layers_scale_with_the_data(tmp_path: Path) -> None:
    rows = [label_distances(probe(POINTS * layer, LABELS)).vector for layer in range(1, 13)]
    names = files.pair_names(["A", "B", "C"])
    path = tmp_path / "batch_vec" / "5.txt"
    files.write_batch_table(path, names, np.stack(rows, axis=1))
    lines = path.read_text().split("\n")
    assert lines[0] == " ,1,2,3,4,5,6,7,8,9,10,11,12" and lines[-1] == ""
    assert lines[2] == "A---C," + ",".join(f"{6.5 * k:.4f}" for k in range(1, 13))
    found, layers, table = oracle.read_batch_table(path)
    assert found == names and layers == list(range(1, 13))
    np.testing.assert_allclose(table, np.outer([5, 6.5, 8.514693183], layers), atol=6e-5)
    files.write_batch_table(path, ["A,1"], [[1.5, np.nan]], layers=[0, 4])
    assert path.read_text() == " ,0,4\nA,1,1.5000,nan\n"
    found, layers, table = oracle.read_batch_table(path)
    assert found == ["A,1"] and layers == [0, 4] and table[0, 0] == 1.5 and np.isnan(table[0, 1])
    with pytest.raises(ValueError, match="table has shape"):
        files.write_batch_table(path, ["A"], np.zeros((2, 2)))


def test_results_read_back_as_written(tmp_path: Path) -> None:
    files.write_clusters(tmp_path / "c", np.array([2, 0, 1]))
    assert files.read_clusters(tmp_path / "c", 3).tolist() == [2, 0, 1]
    files.write_distances(tmp_path / "d", ["a-b", "c"], [[np.nan, 1.25], [1.25, np.nan]])
    assert oracle.read_distances(tmp_path / "d") == {((0, "a-b"), (1, "c")): 1.25}
    files.write_prediction(tmp_path / "p", ["x"], [[1, 0]], [[0.5, 2.0]], ["a,b", "x"])
    assert oracle.read_prediction(tmp_path / "p") == [("x", [(1, "x", 0.5), (0, "a,b", 2.0)])]
    files.write_clusters(tmp_path / "c", np.zeros(0, int))
    assert len(files.read_clusters(tmp_path / "c")) == 0


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (files.read_clusters, "0\n1.5\n", "line 2: '1.5' is not a cluster number"),
        (lambda path: files.read_clusters(path, 3), "0\n1\n", "2 lines for 3 points"),
        (inputs.read_labels, "\n", "lists no label"),
        (inputs.read_entities, "word\tA\nword A\n", "line 2: 'word A' is not text<TAB>label"),
        (lambda path: inputs.read_entities(path, ["A"]), "word\tB\n", "line 1: the label 'B' is not in the label set"),
        (inputs.read_embeddings, "1 2\n1 2 3\n", "line 2: has 3 numbers, the lines before have 2"),
        (inputs.read_embeddings, "1 2\n1 x\n", "line 2: holds something that is not a number"),
        (inputs.read_embeddings, "1 2\n\n1 2\n", "line 2: is empty"),
        (inputs.read_embeddings, "1 nan\n", "line 1: holds NaN"),
        (lambda path: inputs.read_embeddings(path, 2), "1 2\n", "1 vectors for 2 entities"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, reader: object, text: str, message: str) -> None:
    path = tmp_path / "file.txt"
    path.write_text(text)
    with pytest.raises(FinetraceError, match=message) as caught:
        reader(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_a_folder_and_another_encoding_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("gut\tA\nschön\tA\n".encode("latin-1"))
    latin = tmp_path / "latin.txt"
    for path, message in ((tmp_path / "none", "no such file"), (tmp_path, "is a folder"),
                          (latin, "line 2: is not UTF-8")):
        with pytest.raises(FinetraceError, match=message):
            inputs.read_entities(path)


def test_texts_with_blanks_tabs_or_nothing_are_read(tmp_path: Path) -> None:
    path = tmp_path / "entities.txt"
    path.write_bytes(" a b \tA\r\n\tB\nx\ty\tA\nline\u2028separator\tB\n".encode())
    assert inputs.read_entities(path) == ([" a b ", "", "x\ty", "line\u2028separator"], ["A", "B", "A", "B"])


def test_settings_resolve_references_and_read_truth_values(project: Path) -> None:
    found = inputs.read_settings(project / "config.ini")
    assert found.mode == "probing" and found.rate == 0.05 and found.enable_cuda is False and found.comments == "a trial"
    assert found.label_set_path == project / "data/labels/tags.txt" and found.output_path == project / "results"
    assert found.test_entities_path is None and found.probing_cluster_path is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mode = probing", "mode = guess", "mode is 'guess'; choose probing"),
        ("rate = 0.05", "rate = 2", r"rate is '2'; give a share in \(0, 1\]"),
        ("enable_cuda = False", "enable_cuda = maybe", "enable_cuda is 'maybe'; write True or False"),
        ("label_set_path = ${common}/labels/tags.txt", "", r"has no label_set_path in \[data\]"),
        ("common = data", "", r"\[data\] label_set_path: .*common"),
        ("[run]", "run", "is not an INI file"),
    ],
)
def test_unusable_settings_are_refused_with_their_key(project: Path, old: str, new: str, message: str) -> None:
    path = project / "config.ini"
    path.write_text(SETTINGS.replace(old, new))
    with pytest.raises(FinetraceError, match=message) as caught:
        inputs.read_settings(path)
    assert str(path) in str(caught.value)


def test_batch_folders_are_read_in_numeric_order(tmp_path: Path) -> None:
    for name in ("10/2.txt", "10/12.txt", "5/1.txt", "5/notes.md", "empty/x.txt", "last/1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1 2\n")
    found = inputs.batch_files(tmp_path)
    assert list(found) == ["5", "10", "last"] and list(found["10"]) == [2, 12]
    assert found["10"][2] == tmp_path / "10" / "2.txt"
    for folder, message in ((tmp_path / "none", "is not a folder"), (tmp_path / "empty", "holds no")):
        with pytest.raises(FinetraceError, match=message):
            inputs.batch_files(folder)
