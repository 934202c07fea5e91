"""A control group of a test's own, in which a service manager is booted.  Knows cgroups(7)."""

import os
import re
from pathlib import Path

import pytest

from assetd.testing import wait_for


def made(name: str) -> Path:
    """A new group below our own one; skips the test where there can be none."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        folders = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    if not folders:
        pytest.skip("no cgroup2 is mounted here, and a service manager needs one")
    own = Path("/proc/self/cgroup").read_text()
    (path,) = re.findall(r"^0::/(.*)$", own, re.MULTILINE)
    folder = Path(folders[0], path)
    if not os.access(folder, os.W_OK):
        pytest.skip(f"{folder} cannot be written to, and a service manager needs a group")
    group = folder / f"{name}-{os.getpid()}"
    group.mkdir()
    return group


def removed(group: Path) -> None:
    """Wait until nothing runs in *group* any more, and take it away with all below it."""

    def empty() -> bool:
        try:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)
        except OSError:
            return False
        return True

    wait_for(empty, "the processes of the service manager to end", 10.0)
