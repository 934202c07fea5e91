"""The floor of a save: another process that is woken by raw inotify, copies and renames.

    python -m tests.bench.copier FROM TO

Says a line when it watches; ends when its input does.
"""

import os
import select
import sys
from pathlib import Path

from tests.bench.eye import CLOSE_WRITE, Eye


def copy(source: Path, target: Path) -> None:
    """Copy in the kernel, and put it in place at once."""
    temporary = target.with_name(f".{target.name}.new")
    inner = os.open(source, os.O_RDONLY)
    outer = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        while os.copy_file_range(inner, outer, 1 << 30):
            pass
    finally:
        os.close(inner)
        os.close(outer)
    os.rename(temporary, target)


def main() -> None:
    """Copy each file that is written."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    with Eye([source], CLOSE_WRITE) as eye:
        print("watching", flush=True)
        while True:
            ready, _, _ = select.select([eye.fd, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            for path in eye.changed(0.0):
                copy(path, target / path.name)


if __name__ == "__main__":
    main()
