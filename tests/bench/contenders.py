"""Who builds: assetd and each of its peers, as a few functions."""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

READY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to build a tree, and to keep it built."""

    name: str
    lacks: Callable[[], str | None]
    """What is missing, and how to get it; None if it can run."""
    can: frozenset[str]
    """The trees that it builds: T1, T2, T3, less."""
    set_up: Callable[[Path], None]
    """Write what it needs beside `assets`, once."""
    watch: Callable[[Path], "subprocess.Popen[bytes]"]
    """Start it, in a session of its own; its outputs are there, or come by themselves."""
    build: Callable[[Path], None] | None = None
    """Build all that is not up to date, and end."""
    only: frozenset[str] = frozenset()
    """The kinds of save that it takes part in; all if none are named."""
    out: str = "out"
    """Where its outputs are."""
    stop: Callable[[Path], None] = lambda _root: None
    """Before it is ended: for what would outlive that."""
    says: str = ""
    """What it writes when it watches; what is saved before that, some never hear of."""
    shuns: str = "-"
    """It is blind to what is below this folder, and gets its copy of a tree elsewhere."""
    calm_seconds: float = 0.3
    """It is left alone for so long between two saves, to be done with the one before."""


def start(
    root: Path, *words: str | Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """A process in a session of its own, so that `end` takes its children along."""
    with open(root / "watch.log", "ab") as log:
        return subprocess.Popen(
            words,
            cwd=root,
            stdin=subprocess.PIPE,  # some end when it does, and it must not be a terminal
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "NO_COLOR": "1", **(environment or {})},
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """End it in order, and then all that it started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15.0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def run(root: Path, *words: str | Path) -> None:
    """Run it to its end.

    Raises:
        CalledProcessError: It failed; what it said is printed.
    """
    done = subprocess.run(
        words, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        sys.stderr.write((done.stdout + done.stderr)[-2000:].decode(errors="replace"))
        done.check_returncode()


def place(contender: Contender, wished: Path) -> Path:
    """Where it gets its copy of a tree; nothing is there."""
    if not wished.is_relative_to(contender.shuns):
        return wished
    folder = tempfile.mkdtemp(prefix="assetd-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, wished.name)


def needs(*programs: tuple[str, str]) -> Callable[[], str | None]:
    """For `lacks`: the first of the programs that is not there, with how to get it."""

    def lacks() -> str | None:
        for program, how in programs:
            if shutil.which(program) is None:
                return f"{program} is missing: {how}"
        return None

    return lacks


@contextmanager
def memory() -> Iterator[Path]:
    """A folder in memory, where the disk's mood does not count."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="assetd-bench-", dir=base, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


# -- assetd -------------------------------------------------------------------------------

ASSETD = (sys.executable, "-P", "-m", "assetd")
CONFIG = "mounts: [assets]\nout_dir: out\nworkers: 2\n"


def configured(root: Path, config: str = CONFIG) -> None:
    """Write the configuration; everything that it does not name is as it is by default."""
    (root / "assetd.yml").write_text(config)


def running(root: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """`assetd run`, once it has told that it is ready, as a service manager is told."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        address = os.path.join(folder, "notify")
        told.bind(address)
        told.settimeout(READY_SECONDS)
        process = start(root, *ASSETD, "run", *arguments, environment={"NOTIFY_SOCKET": address})
        deadline = time.monotonic() + READY_SECONDS
        while b"READY=1" not in told.recv(4096).split(b"\n"):
            if time.monotonic() > deadline:
                raise TimeoutError("assetd is not ready")
        return process


def assetd(config: str = CONFIG, name: str = "assetd") -> Contender:
    """Assetd with a configuration of its own."""
    return Contender(
        name,
        lambda: None,
        frozenset({"T1", "T2", "T3", "less"}),
        lambda root: configured(root, config),
        running,
        lambda root: run(root, *ASSETD, "build"),
        calm_seconds=0.12,
    )


def limited(contender: Contender, kinds: set[str]) -> Contender:
    """The same, for some kinds of save only."""
    return replace(contender, only=frozenset(kinds))
