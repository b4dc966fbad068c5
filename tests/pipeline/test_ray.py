"""A study on a Ray cluster of two machines (two raylets here), of which one is lost in mid-run: the same bytes.

Two studies of test_kill.py's size: one on this machine alone, one on the cluster.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.test_kill import LAST, STUDY, until
from tests.pipeline.toy import command, committed, environment, make_project, repro

from finetrace.errors import FinetraceError
from finetrace.pipeline.needs import GIB, Needs
from finetrace.pipeline.ray_engine import RayExecutor

pytestmark = pytest.mark.slow
STORE = 80 * 2**20  # bytes of each machine's object store; items pass nothing through it
ray = pytest.importorskip("ray")
SLEEPER = """
import sys, time
from pathlib import Path
Path(sys.argv[1] + ".begun").touch()
try:
    time.sleep(float(sys.argv[2]))
except KeyboardInterrupt:
    Path(sys.argv[1] + ".whole").touch()
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, so that the machine to be lost is not the one that Ray itself needs, and two with one."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=STORE, memory=8 * GIB)
    yield made
    made.shutdown()


def test_a_lost_machine_costs_nothing_but_time(cluster: Any, tmp_path: Path) -> None:
    undisturbed = make_project(tmp_path / "undisturbed", STUDY)
    repro(undisturbed)
    committed(undisturbed, "outputs")
    project = tmp_path / "clustered"
    command(undisturbed, "git", "clone", "-q", ".", str(project))
    with open(tmp_path / "said", "w") as said:
        front = subprocess.Popen(
            [sys.executable, "-m", "finetrace.cli", "repro", "--engine", f"ray:{cluster.address}"], cwd=project,
            env=environment(project), stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        until(lambda: front.poll() is not None or any((project / LAST).parents[1].glob("s*/.tmp-*")), 200)
        victim = sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0]
        cluster.remove_node(victim, allow_graceful=False)
        assert front.wait(400) == 0, (tmp_path / "said").read_text()
    text = (tmp_path / "said").read_text()
    assert "done     train@toy_micro-sentiment_ft_s1" in text and "done: " in text
    assert "(train@toy_micro-sentiment_ft_s" in text, "what items print reaches the front"
    assert command(project, "git", "status", "--porcelain").stdout == ""
    assert (project / "dvc.lock").read_text() == (undisturbed / "dvc.lock").read_text()
    assert "up to date" in repro(project).stdout
    cluster.add_node(num_cpus=1, object_store_memory=STORE, memory=8 * GIB)


def test_commands_end_as_on_this_machine(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "fail.py").write_text("print('why')\nraise SystemExit(3)")
    (tmp_path / "look.py").write_text("import os\nprint(os.getcwd(), os.environ['FINETRACE_THREADS'], os.environ['A'])")
    (tmp_path / "die.py").write_text("import os\nos.kill(os.getpid(), 9)")
    with RayExecutor(tmp_path, cluster.address) as executor:
        assert executor.room() == 2
        for name in ("fail", "look", "die"):
            executor.submit(name, f"python {name}.py", {"A": "b", "FINETRACE_THREADS": "7"}, Needs(memory=GIB))
        ended = {each.name: each for each in (executor.next(120) for _ in range(3)) if each}
        assert (ended["fail"].code, ended["fail"].output) == (3, "why")
        assert ended["look"].output == f"{tmp_path} 1 b"
        assert ended["die"].code == -signal.SIGKILL, "one that was killed on its machine has failed, as it has here"
        assert executor.next(0) is None
        with pytest.raises(FinetraceError, match=r"x asks for 3 cpus.*at most 1"):
            executor.submit("x", "true", {}, Needs(cpus=3))


def test_an_interrupt_lets_items_end_at_a_whole_state(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "sleep.py").write_text(SLEEPER)
    executor = RayExecutor(tmp_path, cluster.address, grace=20)
    executor.submit("a", "python sleep.py a 1000", {}, Needs(memory=GIB))
    until((tmp_path / "a.begun").exists)
    began = time.monotonic()
    executor.close()
    assert (tmp_path / "a.whole").exists() and time.monotonic() - began < 20


def test_no_cluster_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FinetraceError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 .*ray start --head"):
        with contextlib.closing(RayExecutor(tmp_path, "127.0.0.1:1")) as executor:
            executor.prepare()
