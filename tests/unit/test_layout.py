"""Names and places of files."""

from pathlib import Path

import pytest

from finetrace.errors import FinetraceError
from finetrace.layout import Layout, is_slug, slug

ALONE = ("comparison", "cross-task", "downstream", "dynamics", "directprobe")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("google/bert_uncased_L-2", "google-bert-uncased-l-2"),
        ("a..b", "a.b"),
        ("../../etc/passwd", "etc-passwd"),
        (" My Task ", "my-task"),
        (".hidden", "hidden"),
        ("été", "ete"),
    ],
)
def test_slug(name, expected):
    assert slug(name) == expected
    assert is_slug(expected)
    assert slug(expected) == expected


@pytest.mark.parametrize("name", ["", "..", "///", "日本"])
def test_slug_of_nothing_is_an_error(name):
    with pytest.raises(FinetraceError, match="choose a name such as"):
        slug(name)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".", "", "A", "a_b", "a b", "-a", ".a", "a..b", "a.", "a\n", "é", "a\\b"]
)
def test_no_slug(name):
    assert not is_slug(name)


def test_here_takes_the_project_from_dvc(tmp_path, monkeypatch):
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("DVC_ROOT", str(home))
    layout = Layout.here()
    assert (layout.root, layout.home) == (work, home)
    assert layout.params == work / "params.yaml"
    assert layout.tracking_artifacts.parent == layout.logs.parent.parent == home
    assert layout.scratch("train", "k" * 64).is_relative_to(home / ".finetrace")
    monkeypatch.delenv("DVC_ROOT")
    assert Layout.here().home == work


def test_places_of_two_items_never_coincide(tmp_path):
    layout = Layout(tmp_path, tmp_path)
    places = [
        layout.world,
        layout.task("a"),
        layout.model("a"),
        layout.pretrain("a"),
        layout.tune("a", "t", "ft"),
        layout.run("a", "t", "ft", 1),
        layout.run("a", "t", "ft", 11),
        layout.adapt("a"),
        layout.atlas,
        layout.settings,
        layout.plan,
        tmp_path / "inputs",
        *(layout.standalone(stage, "a") for stage in ALONE),
    ]
    assert len(set(places)) == len(places)
    assert not any(a != b and a.is_relative_to(b) for a in places for b in places)


def test_a_place_is_the_folder_of_its_trajectory(tmp_path):
    layout = Layout(tmp_path, tmp_path)
    assert layout.place("a/t/ft/s11") == layout.run("a", "t", "ft", 11)
    assert layout.place("a/pretrain") / "trajectory" == layout.pretrain("a")
    assert layout.place("a/adapt") / "trajectory" == layout.adapt("a")


def test_what_is_kept_lies_in_the_users_project_and_is_no_output(tmp_path):
    layout = Layout(tmp_path / "work", tmp_path / "home")
    for kept in (layout.measured("kernel", "a_t_ft_s1"), layout.results("tune", "k" * 64), layout.scratch("x", "k")):
        assert kept.is_relative_to(tmp_path / "home" / ".finetrace")
    assert layout.measured("kernel", "a") != layout.measured("hulls", "a") != layout.measured("hulls", "b")


def test_relative_names_places_as_manifests_do(tmp_path, monkeypatch):
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    layout = Layout(root, root)
    assert layout.relative(root / "data" / "x") == "data/x"
    assert layout.relative(root / "data" / ".." / "models") == "models"
    assert layout.relative(tmp_path / "elsewhere" / "x") == "x"
    assert layout.relative(root / ".." / "elsewhere" / "x") == "x"
    monkeypatch.chdir(root)
    assert layout.relative(Path("data/x")) == "data/x"


def test_relative_follows_links_both_ways(tmp_path):
    root, disk = tmp_path / "project", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    (root / "data").symlink_to(disk)  # results on another disk
    assert Layout(root, root).relative(root / "data" / "x") == "data/x"
    (tmp_path / "link").symlink_to(root)  # the project itself reached by a link
    assert Layout(tmp_path / "link", root).relative(root / "models" / "m") == "models/m"
