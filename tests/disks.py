"""File systems of our own, for tests that fill them or take them away."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from assetd.testing import wait_for


class Disk:
    """A small file system of our own: a tmpfs."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"we may not mount a file system here: {done.stderr.strip()}")

    def remount(self, how: str) -> None:
        command = ["mount", "-o", f"remount,{how}", str(self.folder)]
        wait_for(  # a worker that is about to end may have a file open
            lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0,
            "the disk to be remounted",
        )

    def use_up_space(self) -> None:
        with open(self.folder / "ballast", "ab", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def use_up_names(self) -> None:
        """Leave no room for another file, however small."""
        (self.folder / "names").mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            for n in range(100_000):
                (self.folder / "names" / str(n)).touch()

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "names", ignore_errors=True)

    def let_go(self) -> None:
        """Unmount it, once nobody has a file open on it any more."""
        command = ["umount", str(self.folder)]
        wait_for(
            lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0,
            "the disk to be let go",
        )
