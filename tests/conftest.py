"""What all tests share: the signals that they begin with, a small disk, and tools."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.disks import Disk

from assetd_processors import tools as node_tools

# A shell that runs a job in the background has it ignore Ctrl-C, and our children inherit that:
# then nothing that is interrupted ends.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of three megabytes and three hundred names, in a project's folder `disk`."""
    found = Disk(tmp_path / "site" / "disk", "size=3m,nr_inodes=300")
    yield found
    found.let_go()


@pytest.fixture(scope="session")
def tools() -> Path:
    """The packages of the Node processors, installed once per lock file and machine."""
    node_tools.install(sys.stderr)
    return node_tools.packages()
