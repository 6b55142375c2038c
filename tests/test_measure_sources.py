"""Process-tree RSS: who belongs to a tree, and when it is over."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from harness.measure.sources import RssSource, Sample
from harness.measure.tree import ProcessTree, TargetGone, child_pids
from harness.samples import MEMORY_COLUMNS
from tests.waiting import wait_until

NAP = "import time; print(flush=True); time.sleep(60)"  # the line says that it has grown
PARENT = f"""
import subprocess, sys, time
sys.stdin.readline()
child = subprocess.Popen([sys.executable, "-c", {NAP!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.readline()
child.kill(); child.wait()
sys.stdin.readline()
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def parent():
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, text=True) as p:
        tell(p)
        yield p
        p.kill()


def tell(process: subprocess.Popen) -> None:
    """Let it go on to its next step."""
    process.stdin.write("\n")
    process.stdin.flush()


def wait_for_sleep(pid: int) -> None:
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_SLEEPING)


def test_a_sample_has_the_columns_of_the_record():
    assert Sample._fields == tuple(MEMORY_COLUMNS)


def test_the_tree_sums_the_rss_of_a_process_and_its_child(parent):
    child = int(parent.stdout.readline())
    for pid in (parent.pid, child):
        wait_for_sleep(pid)
    tree = ProcessTree(parent.pid)
    rss_bytes, processes = tree.rss()
    apart = sum(psutil.Process(pid).memory_info().rss for pid in (parent.pid, child))
    assert processes == 2
    assert rss_bytes == pytest.approx(apart, rel=0.02)
    assert tree.pids == {parent.pid, child}


def test_the_kernels_list_of_children_is_psutils(parent):
    parent.stdout.readline()
    children = [child.pid for child in psutil.Process(parent.pid).children()]
    assert child_pids(parent.pid) == children != []


def test_children_are_listed_once_a_second_and_count_a_moment_later_at_any_rate():
    clock = Clock()
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=-1, stdout=-1, text=True) as parent:
        tree = ProcessTree(parent.pid, clock)
        assert tree.rss()[1] == 1
        tell(parent)
        parent.stdout.readline()
        clock.now = 0.99
        assert tree.rss()[1] == 1
        clock.now = 1.0
        assert tree.rss()[1] == 1  # found: it may be a copy of its parent that has yet to exec
        clock.now = 1.04
        assert tree.rss()[1] == 1
        clock.now = 1.05
        assert tree.rss()[1] == 2
        tell(parent)
        while child_pids(parent.pid):
            time.sleep(0.01)
        assert tree.rss()[1] == 1
        parent.kill()


def test_a_process_whose_parent_ended_stays_in_the_tree():
    spawn = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}])"
    middle = spawn.format(NAP) + "; time.sleep(0.5)"
    orphaner = spawn.format(middle) + ".wait(); time.sleep(60)"
    clock = Clock()
    with subprocess.Popen([sys.executable, "-c", orphaner], start_new_session=True) as root:
        tree = ProcessTree(root.pid, clock)
        while tree.rss()[1] < 3:
            time.sleep(0.02)
            clock.now += 1
        while child_pids(root.pid):
            time.sleep(0.02)
        clock.now += 1
        assert tree.rss()[1] == 2
        for pid in tree.pids:
            psutil.Process(pid).kill()


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_root_that_ended_ends_the_sampling(is_reaped):
    with subprocess.Popen([sys.executable, "-c", NAP]) as root:
        source = RssSource(ProcessTree(root.pid))
        assert source.lenses == ()
        [sample] = source.read(7)
        assert (sample.t_ns, sample.device) == (7, "host")
        assert source.lenses == ("rss",)
        root.kill()
        if is_reaped:
            root.wait()
        else:
            while psutil.Process(root.pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        with pytest.raises(TargetGone):
            source.read(8)


def test_beside_gpus_that_tell_their_memory_rss_is_read_about_ten_times_a_second():
    telling = [False]
    with subprocess.Popen([sys.executable, "-c", NAP]) as root:
        source = RssSource(ProcessTree(root.pid), lambda: telling[0])
        at_20_ms = [t * 20_000_000 for t in range(51)]  # a second at 50 Hz
        assert sum(len(source.read(t)) for t in at_20_ms) == 51
        telling[0] = True
        assert sum(len(source.read(10**9 + t)) for t in at_20_ms) == 11
        telling[0] = False  # the GPU is lost
        assert sum(len(source.read(3 * 10**9 + t)) for t in at_20_ms) == 51
        root.kill()


def test_a_root_that_never_was_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as root:
        root.wait()
        with pytest.raises(TargetGone):
            ProcessTree(root.pid)


def test_rss_is_that_of_psutil_and_outlives_no_process():
    with subprocess.Popen([sys.executable, "-c", NAP], stdout=subprocess.PIPE) as root:
        root.stdout.readline()
        wait_for_sleep(root.pid)
        tree = ProcessTree(root.pid)
        assert tree.rss() == (psutil.Process(root.pid).memory_info().rss, 1)
        root.kill()


def test_the_tree_owns_a_child_before_it_is_listed_and_after_it_ended(parent):
    clock = Clock()
    tree = ProcessTree(parent.pid, clock)
    child = int(parent.stdout.readline())
    assert tree.owns(parent.pid)
    assert tree.owns(child), "the tree has not been refreshed since it came"
    tell(parent)
    while psutil.pid_exists(child):
        time.sleep(0.01)
    assert tree.owns(child)
    clock.now += 1.5
    for _ in range(2):
        tree.rss()
    assert not tree.owns(child), "its number may be a stranger's by now"


def test_the_tree_owns_an_orphan_of_the_session_that_the_worker_leads():
    # The middle process ends before anyone could list it; its child has no ancestor in the tree.
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {NAP!r}])"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {middle!r}]); {NAP}"
    with subprocess.Popen([sys.executable, "-c", program], start_new_session=True) as root:
        tree = ProcessTree(root.pid)
        tree.rss()

        def orphans() -> list[int]:
            return [
                p.pid
                for p in psutil.process_iter()
                if p.pid != root.pid and psutil.pid_exists(p.pid) and _session(p.pid) == root.pid
            ]

        wait_until(lambda: not child_pids(root.pid) and orphans())
        [orphan] = orphans()
        assert tree.owns(orphan)
        psutil.Process(orphan).kill()
        root.kill()


def test_the_tree_does_not_own_strangers():
    with subprocess.Popen([sys.executable, "-c", NAP]) as root:
        tree = ProcessTree(root.pid)
        assert not tree.owns(os.getpid())
        assert not tree.owns(1)
        root.kill()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
