"""Process-tree RSS: who belongs to a tree, and when it is over."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from harness.measure.sources import RssSource, Sample
from harness.measure.tree import ProcessTree, TargetGone, child_pids
from harness.samples import MEMORY_COLUMNS

NAP = "import time; time.sleep(60)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {NAP!r}])
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
        yield p
        p.kill()


def test_a_sample_has_the_columns_of_the_record():
    assert Sample._fields == tuple(MEMORY_COLUMNS)


def test_the_tree_sums_the_rss_of_a_process_and_its_child(parent):
    child = int(parent.stdout.readline())
    time.sleep(0.2)
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


def test_children_are_listed_once_a_second_and_count_from_the_sample_after():
    clock = Clock()
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=-1, stdout=-1, text=True) as parent:
        tree = ProcessTree(parent.pid, clock)
        assert tree.rss()[1] == 1
        parent.stdout.readline()
        clock.now = 0.99
        assert tree.rss()[1] == 1
        clock.now = 1.0
        assert tree.rss()[1] == 1  # found: it may be a copy of its parent that has yet to exec
        assert tree.rss()[1] == 2
        parent.stdin.write("\n")
        parent.stdin.flush()
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


def test_a_root_that_never_was_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as root:
        root.wait()
        with pytest.raises(TargetGone):
            ProcessTree(root.pid)
