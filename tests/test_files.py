"""What a folder that can't be written to says: whose it is, who asks, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.files import disk_errors


def refusal(path: Path, number: int) -> str:
    with pytest.raises(MachineError) as caught, disk_errors(path):
        raise OSError(number, os.strerror(number), str(path))
    assert caught.value.exit_code == 7
    return str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_a_folder_of_another_user_names_both_users_and_two_ways_out(tmp_path: Path):
    folder = tmp_path / "results"
    folder.mkdir()
    os.chown(folder, 4242, 4243)
    told = refusal(folder / "cpu" / "runs", errno.EACCES)
    me = f"{os.geteuid()}:{os.getegid()}"
    assert f"results belongs to user 4242:4243 and this is user {me}" in told
    assert f"chown -R {me}" in told
    assert "HARNESS_USER=4242:4243" in told
    assert "--output-dir" in told


def test_a_folder_of_one_s_own_is_not_blamed_on_another(tmp_path: Path):
    told = refusal(tmp_path / "cpu", errno.EACCES)
    assert "belongs to" not in told
    assert f"give user {os.geteuid()}:{os.getegid()} the right to write there" in told


def test_a_full_disk_asks_for_room_and_a_read_only_one_for_another(tmp_path: Path):
    assert "No space left on device; make room or name another" in refusal(tmp_path, errno.ENOSPC)
    assert "mount a folder there that can be written" in refusal(tmp_path, errno.EROFS)
