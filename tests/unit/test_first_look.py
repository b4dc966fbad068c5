"""`finetrace look`: one page, one table, nothing else; and what it says when something is missing."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from tests.first_looks import as_checkpoint, classifier_folder, encoder_folder, rows_file

from finetrace.cli import main
from finetrace.models.heads import head_of
from finetrace.store.tables import read_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a file of rows; treat it as read-only."""
    root = tmp_path_factory.mktemp("look")
    encoder_folder(root / "plain")
    classifier_folder(root / "tuned")
    rows_file(root / "rows.csv")
    return root


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command says on its way out; it has to be one sentence, and leave nothing behind."""
    assert main(["look", *words]) == 1
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("finetrace: ")]
    assert not Path("first-look").exists()
    return line.removeprefix("finetrace: ")


class Page(HTMLParser):
    """Tags of a page, and its addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_two_models_in_an_empty_folder(folder: Path, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(folder / "plain"), str(folder / "tuned"), "--task", str(folder / "rows.csv")]) == 0
    said = capsys.readouterr()
    assert "2 models x 30 of train + 30 of validation rows of rows" in said.err and "about" in said.err
    assert re.search(r"^ +plain +tuned$", said.out, flags=re.MULTILINE)
    for words in ("geometry cosine", "similarity CKA with plain 1.000", "hulls clusters 2 2", "probes probe",
                  "calibration head, accuracy –"):
        assert words in " ".join(said.out.split()), words
    assert [path.name for path in empty.iterdir()] == ["first-look"]
    assert sorted(path.name for path in (empty / "first-look").iterdir()) == ["index.html", "table.parquet"]
    text = (empty / "first-look/index.html").read_text("utf-8")
    page = Page(text)
    assert page.tags.count("svg") == 6 and "prefers-color-scheme: dark" in text
    beside = [address for address in page.addresses if not address.startswith(("#", "data:image/png;base64,"))]
    assert beside == []
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]+"', "", text)
    table = read_table(empty / "first-look/table.parquet").to_pandas()
    assert set(table["lens"]) == {"geometry", "similarity", "hulls", "probes", "convergence", "calibration"}
    assert set(table[table["lens"] == "similarity"]["other_model"]) == {"plain"}
    assert table["value"].notna().sum() > 300


def test_some_lenses_of_one_model(folder: Path, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(folder / "plain"), "--task", str(folder / "rows.csv"), "--lens", "convergence,similarity",
                 "--rows", "20", "--out", "here"]) == 0
    assert "probes" not in capsys.readouterr().out
    table = read_table(empty / "here/table.parquet").to_pandas()
    assert set(table["lens"]) == {"convergence", "similarity"}


def test_texts_of_others_are_escaped(folder: Path, empty: Path) -> None:
    model = empty / "<b>bold"
    shutil.copytree(folder / "tuned", model)
    rows = rows_file(empty / "rows.csv").read_text().replace("negative", "<i>negative")
    (empty / "rows.csv").write_text(rows)
    assert main(["look", str(model), "--task", "rows.csv", "--lens", "probes,convergence"]) == 0
    text = (empty / "first-look/index.html").read_text("utf-8")
    assert "<b>" not in text and "<i>" not in text and "&lt;b&gt;bold" in text and "&lt;i&gt;negative" in text


def test_a_checkpoint_of_a_study_finds_its_tokenizer(folder: Path, empty: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "plain", empty / "models/plain")
    trajectory = as_checkpoint(folder / "plain", empty / "outputs/plain/rows/ft/s1/trajectory", {})
    checkpoint = trajectory / "checkpoints/step-00000000"
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    (checkpoint / "complete.json").write_text(json.dumps({"files": {}, "step": 0}))
    rows = ["--task", str(folder / "rows.csv"), "--lens", "probes"]
    assert "is a trajectory; name one of its checkpoints" in refused(capsys, str(trajectory.parent), *rows)
    assert main(["look", str(checkpoint), *rows]) == 0
    shutil.rmtree(empty / "first-look")
    shutil.rmtree(empty / "models")
    assert "without a tokenizer" in refused(capsys, str(checkpoint), *rows)


def test_refusals_of_models(folder: Path, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--task", str(folder / "rows.csv")]
    assert "lab/model@main" in refused(capsys, "lab/model@main", *rows)  # offline, and not in the cache
    assert "no such folder" in refused(capsys, "./model", *rows)
    (empty / "model").mkdir()
    assert refused(capsys, "model", *rows).startswith("model: has no config.json")
    shutil.copy(folder / "plain/config.json", empty / "model")
    assert refused(capsys, "model", *rows).startswith("model: has no *.safetensors")
    assert "is a file" in refused(capsys, str(folder / "rows.csv"), *rows)
    plain = str(folder / "plain")
    assert "named twice" in refused(capsys, plain, plain, *rows)
    assert "are one folder" in refused(capsys, plain, f"{plain}/../plain", *rows)
    shutil.copytree(folder / "plain", empty / "broken")
    weights = empty / "broken/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert refused(capsys, "broken", *rows).startswith("broken/model.safetensors: is no whole safetensors file")


def test_refusals_of_tasks(folder: Path, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = str(folder / "plain")
    assert "the nearest are sst2" in refused(capsys, plain, "--task", "sst-2")
    assert "no such file" in refused(capsys, plain, "--task", "rows.csv")
    assert "chemprot" in refused(capsys, plain, "--task", "chemprot")
    (empty / "rows.csv").write_text("a,b\nx,1\ny,0\n")
    said = refused(capsys, plain, "--task", "rows.csv")
    assert "no column that is called a label; its columns are a, b: say which it is with --label" in said
    (empty / "rows.csv").write_text("a,b,label\nx,1,1\ny,0,0\n")
    assert "with --text" in refused(capsys, plain, "--task", "rows.csv")
    assert "has no column 'c'" in refused(capsys, plain, "--task", "rows.csv", "--text", "c")
    (empty / "rows.csv").write_text("text,label\n" + "good1 good2,yes\n" * 20 + "bad1,no\n")
    said = refused(capsys, plain, "--task", "rows.csv")
    assert "two classes need at least 2 rows each" in said and "of 'no'" in said
    (empty / "rows.csv").write_text("text,label\nx,yes\n")
    assert "one class" in refused(capsys, plain, "--task", "rows.csv")


def test_files_that_want_a_word_more(folder: Path, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file's reader asks for is said with --set, and stands in the study."""
    lines = rows_file(empty / "x.csv").read_text().splitlines()
    quoted = [line.replace(",", "\t") if number == 0 else '"{}"\t{}'.format(*line.rsplit(",", 1)).replace(" ", "\n", 1)
              for number, line in enumerate(lines)]
    (empty / "quoted.csv").write_text("\n".join(quoted))
    look = [str(folder / "plain"), "--task", "quoted.csv", "--lens", "probes"]
    said = refused(capsys, *look)
    assert "seems to be separated by tabs: set `format: tsv`; here with --set format=..." in said
    assert "here with --set quoting=..." in refused(capsys, *look, "--set", "format=tsv")
    words = ["--set", "format=tsv", "--set", "quoting=standard"]
    assert main(["look", *look, *words, "--save", "study.yaml"]) == 0
    (task,) = yaml.safe_load((empty / "study.yaml").read_text())["task_files"].values()
    assert (task["format"], task["quoting"], task["path"]) == ("tsv", "standard", str(empty / "quoted.csv"))
    shutil.rmtree(empty / "first-look")
    assert "is no KEY=VALUE" in refused(capsys, *look, "--set", "quoting")
    assert "did you mean 'quoting'" in refused(capsys, *look, "--set", "quotting=x")
    assert "say --set like=sst2" in refused(capsys, *look[:1], "--task", "sst2", "--set", "path=x")
    (empty / "semi.csv").write_text("text;label\nx;1\n")
    assert "separated by semicolons" in refused(capsys, *look[:1], "--task", "semi.csv")


def test_a_file_in_the_form_of_a_built_in_task(folder: Path, empty: Path) -> None:
    for name in ("train_5500.label", "TREC_10.label"):
        lines = [f"{'HUM:ind' if i % 2 else 'NUM:date'} {'good1' if i % 2 else 'bad1'} good2 ?" for i in range(200)]
        (empty / name).write_text("\n".join(lines) + "\n")
    words = ["--lens", "probes", "--rows", "20"]
    assert main(["look", str(folder / "plain"), "--task", ".", "--set", "like=trec-files", *words]) == 0
    words += ["--set", "format=trec", "--label", "coarse"]
    assert main(["look", str(folder / "plain"), "--task", "TREC_10.label", *words]) == 0


def test_names_in_other_letters(folder: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accents go, other scripts have a name of their own; in a project the study's paths are the project's."""
    for name in ("été", "評論"):
        rows_file(empty / f"{name}.csv")
    for name in ("模型", "型"):
        shutil.copytree(folder / "plain", empty / name)
    words = ["--lens", "probes,similarity"]
    assert main(["look", "模型", "型", "--task", "été.csv", *words, "--save", "a.yaml"]) == 0
    study = yaml.safe_load((empty / "a.yaml").read_text())
    assert list(study["task_files"]) == ["ete"] and list(study["series"]) == ["model", "model-2"]
    assert study["task_files"]["ete"]["path"] == str(empty / "été.csv")
    (empty / "dvc.yaml").write_text("")
    (empty / "pipelines").mkdir()
    (empty / "below").mkdir()
    monkeypatch.chdir(empty / "below")
    assert main(["look", "../模型", "--task", "../評論.csv", *words, "--save", "b.yaml"]) == 0
    study = yaml.safe_load((empty / "below/b.yaml").read_text())
    assert study["task_files"]["rows"]["path"] == "評論.csv" and study["series"]["model"]["path"] == "模型"


def test_refusals_of_options(folder: Path, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, rows = str(folder / "plain"), ["--task", str(folder / "rows.csv")]
    assert "did you mean geometry?" in refused(capsys, plain, *rows, "--lens", "geomtry")
    assert "take 10 or more" in refused(capsys, plain, *rows, "--rows", "3")
    (empty / "out").write_text("mine")
    assert "is no folder" in refused(capsys, plain, *rows, "--out", "out")
    assert (empty / "out").read_text() == "mine"
    (empty / "study.yaml").write_text("mine")
    assert "is there already" in refused(capsys, plain, *rows, "--save", "study.yaml")


def test_rows_may_lie_anywhere(folder: Path, empty: Path) -> None:
    """A file whose columns have other names, JSON lines, and a folder with a file per split."""
    rows_file(empty / "named.csv", columns=("what is said", "verdict"))
    assert main(["look", str(folder / "plain"), "--task", "named.csv", "--text", "what is said", "--label", "verdict",
                 "--lens", "probes"]) == 0
    lines = rows_file(empty / "x.csv").read_text().splitlines()[1:]
    split = [json.dumps(dict(zip(("review", "stars"), line.split(","), strict=True))) for line in lines]
    (empty / "reviews").mkdir()
    for name, part in (("train", split[:30]), ("dev", split[30:])):
        (empty / "reviews" / f"{name}.jsonl").write_text("\n".join(part))
    assert main(["look", str(folder / "plain"), "--task", "reviews", "--lens", "probes"]) == 0


def test_the_study_that_does_it_in_full(folder: Path, empty: Path) -> None:
    models = [str(folder / name) for name in ("plain", "tuned")]
    words = ["--task", str(folder / "rows.csv"), "--lens", "probes,calibration,similarity", "--seed", "3"]
    assert main(["look", *models, *words, "--save", "study.yaml"]) == 0
    study = yaml.safe_load((empty / "study.yaml").read_text())
    assert study == {
        "study": {"name": "look-rows", "seed": 3},
        "task_files": {"rows": {"path": str(folder / "rows.csv"), "text": ["text"], "label": "label", "holdout": 0.5}},
        "series": {"plain": {"path": models[0], "tasks": ["rows"]},
                   "tuned": {"path": models[1], "tasks": ["rows"], "head": "rows"}},
        "look": {"similarity, probes": "all", "calibration": ["tuned/rows/given/s1"]},
        "comparisons": {"plain-tuned": {"first": "plain/rows/given/s1", "second": "tuned/rows/given/s1"}}}


def test_heads_are_matched_by_name(folder: Path, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--task", str(folder / "rows.csv"), "--lens", "calibration"]

    def accuracy(*names: str) -> str:
        shutil.rmtree(empty / "model", ignore_errors=True)
        classifier_folder(empty / "model", names)
        assert main(["look", "model", *rows]) == 0
        said = capsys.readouterr().out
        return re.findall(r"head, accuracy +([\d.]+)", said)[0]

    straight = accuracy("negative", "positive")
    assert float(accuracy("POSITIVE", "NEGATIVE")) == pytest.approx(1 - float(straight), abs=2e-3)
    assert accuracy("LABEL_0", "LABEL_1") == straight
    shutil.rmtree(empty / "first-look")
    for names, words in ((("happy", "sad"), "its head tells happy, sad, and the task's classes are negative, positive"),
                         (("a", "b", "c"), "its head has 3 classes")):
        shutil.rmtree(empty / "model")
        classifier_folder(empty / "model", names)
        assert words in refused(capsys, "model", *rows)
    assert head_of(folder / "plain").kind == "none"
