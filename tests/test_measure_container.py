"""Containers and cgroups, read from files as the kernel and engines write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.measure.container import Limits, Ram, container_signs, read_limits

GIB = 2**30
V1_NO_LIMIT = "9223372036854771712\n"


@pytest.fixture
def cgroup(tmp_path: Path):
    """Write /proc/self/cgroup and files of /sys/fs/cgroup; returns what is read of them."""

    def read(membership: str, files: dict[str, str]) -> Limits:
        (tmp_path / "cgroup").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_limits(tmp_path / "cgroup", tmp_path / "sys")

    return read


def test_version_2_in_a_container_is_the_mount_itself(cgroup):
    stat = "anon 1\ninactive_file 1073741824\nactive_file 5\n"
    files = {
        "memory.max": f"{4 * GIB}\n",
        "memory.current": f"{2 * GIB}\n",
        "memory.stat": stat,
        "cpu.max": "150000 100000\n",
    }
    assert cgroup("0::/\n", files) == Limits(4 * GIB, GIB, 1.5)


def test_version_2_on_a_host_takes_the_tightest_of_all_groups_around(cgroup):
    files = {
        "user.slice/job/memory.max": "max\n",
        "user.slice/memory.max": f"{3 * GIB}\n",
        "user.slice/memory.current": f"{GIB}\n",
        "user.slice/job/cpu.max": "400000 100000\n",
        "user.slice/cpu.max": "max 100000\n",
    }
    assert cgroup("0::/user.slice/job\n", files) == Limits(3 * GIB, GIB, 4.0)


@pytest.mark.parametrize("path", ["", "docker/abc/"])
def test_version_1_is_read_at_the_path_or_at_the_mount(cgroup, path):
    files = {
        f"memory/{path}memory.limit_in_bytes": f"{2 * GIB}\n",
        f"memory/{path}memory.usage_in_bytes": f"{GIB}\n",
        f"memory/{path}memory.stat": "inactive_file 1\ntotal_inactive_file 1048576\n",
        f"cpu/{path}cpu.cfs_quota_us": "50000\n",
        f"cpu/{path}cpu.cfs_period_us": "100000\n",
    }
    membership = "4:memory:/docker/abc\n1:cpu:/docker/abc\n0::/docker/abc\n"
    assert cgroup(membership, files) == Limits(2 * GIB, GIB - 2**20, 0.5)


def test_no_limit_is_none_in_both_versions(cgroup):
    v1 = {"memory/memory.limit_in_bytes": V1_NO_LIMIT, "cpu/cpu.cfs_quota_us": "-1\n"}
    assert cgroup("4:memory:/\n1:cpu,cpuacct:/\n", v1) == Limits()
    assert cgroup("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}) == Limits()


def test_without_cgroups_there_is_no_limit(tmp_path):
    assert read_limits(tmp_path / "none", tmp_path) == Limits()


@pytest.mark.parametrize("text", ["", "garbage\n", "0::\n", "1:memory\n", "0::/../..\n"])
def test_a_strange_membership_is_no_limit(cgroup, text):
    assert cgroup(text, {}) == Limits()


def test_limits_are_read_for_real():
    limits = read_limits()
    assert limits.memory_bytes is None or limits.memory_bytes > 2**20


def test_a_cgroup_limit_counts_where_it_is_tighter_than_the_machine():
    assert Ram.of(20 * GIB, 24 * GIB, Limits()) == Ram(20 * GIB, 24 * GIB, 24 * GIB)
    assert Ram.of(20 * GIB, 24 * GIB, Limits(64 * GIB)).total_bytes == 24 * GIB
    assert Ram.of(20 * GIB, 24 * GIB, Limits(4 * GIB, GIB)) == Ram(3 * GIB, 4 * GIB, 24 * GIB)
    assert Ram.of(2 * GIB, 24 * GIB, Limits(4 * GIB, GIB)).available_bytes == 2 * GIB
    assert Ram.of(20 * GIB, 24 * GIB, Limits(GIB, 2 * GIB)).available_bytes == 0


def signs(tmp_path: Path, environ: dict[str, str], membership: str = "0::/\n") -> tuple[str, ...]:
    (tmp_path / "cgroup").write_text(membership)
    return container_signs(environ, tmp_path, tmp_path / "cgroup")


def test_a_host_shows_no_sign(tmp_path):
    assert signs(tmp_path, {"HOME": "/root"}, "0::/user.slice/session-1.scope\n") == ()


@pytest.mark.parametrize("name", [".dockerenv", "run/.containerenv"])
def test_the_engines_files_are_signs(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert signs(tmp_path, {}) == (f"/{name}",)


@pytest.mark.parametrize("name", ["HARNESS_IMAGE_VARIANT", "KUBERNETES_SERVICE_HOST", "container"])
def test_variables_are_signs_if_they_are_set(tmp_path, name):
    assert signs(tmp_path, {name: "cpu"}) == (name,)
    assert signs(tmp_path, {name: ""}) == ()


@pytest.mark.parametrize(
    "path", ["/docker/0a1b", "/kubepods.slice/kubepods-besteffort.slice/x", "/libpod-77"]
)
def test_a_cgroup_of_an_engine_is_a_sign(tmp_path, path):
    assert signs(tmp_path, {}, f"4:memory:{path}\n") == (str(tmp_path / "cgroup"),)
