"""A project on a real disk for one processor to work in, and real packages from npm."""

import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from assetd.errors import BuildError
from assetd.model import Diagnostic, Kind
from assetd.processor import Processor, Setting
from assetd.stamp import Looker
from assetd.step import Desk

_LOCK = Path(__file__).parent / "npm"


@dataclass
class Bench:
    """A project with the mount `assets`, in which one processor runs on one path at a time."""

    project: Path
    staging: Path
    mount_name: str = "assets"
    warm: dict[str, Any] = field(default_factory=dict)
    serial: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def mount(self) -> Path:
        return self.project / self.mount_name

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write *files*, named from the project."""
        for name, content in files.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def desk(
        self,
        processor: Processor,
        path: str,
        made_before: Path | None = None,
        companions: Mapping[str, Path] | None = None,
        **options: Any,
    ) -> Desk:
        """What the processor is handed for *path*, or for what a node before it made of that."""
        given = {option.name: option.default for option in processor.options} | options
        if processor.warm is not None and processor.name not in self.warm:
            self.warm[processor.name] = processor.warm(Setting(self.project, given, 0))
        names = processor.outputs(path, given)
        origin = self.mount / path
        return Desk(
            processor.name,
            path,
            os.fspath(origin if made_before is None else made_before),
            os.fspath(origin),
            self.mount,
            self.project,
            given,
            None if processor.bypass else (*names.primary, *names.companions),
            lambda _name: str(self.staging / str(next(self.serial))),
            Looker(os.fspath(self.project)),
            companions or {},
            warm=self.warm.get(processor.name),
        )

    def run(
        self,
        processor: Processor,
        path: str,
        made_before: Path | None = None,
        companions: Mapping[str, Path] | None = None,
        **options: Any,
    ) -> Desk:
        """The desk after the processor is done."""
        desk = self.desk(processor, path, made_before, companions, **options)
        processor.process(desk)
        desk.clear_scratch()
        return desk

    def make(self, processor: Processor, path: str, **options: Any) -> dict[str, bytes]:
        """What the processor makes of *path*, by name."""
        staged = self.run(processor, path, **options).staged
        return {name: Path(content).read_bytes() for name, content in staged.items()}

    def text(self, processor: Processor, path: str, **options: Any) -> str:
        """The one output that the processor makes of *path*."""
        (content,) = self.make(processor, path, **options).values()
        return content.decode()

    def told(self, processor: Processor, path: str, **options: Any) -> dict[str, bool]:
        """What the result depends on, from the project, and whether it is there."""
        return self.depended(self.run(processor, path, **options))

    def depended(self, desk: Desk) -> dict[str, bool]:
        """What the step said that its result depends on, and whether it is there."""
        return {
            place: (self.project / place).is_file()
            for kind, place, _ in desk.depended
            if kind is Kind.FILE
        }

    def refuse(self, processor: Processor, path: str, **options: Any) -> tuple[Diagnostic, Desk]:
        """What people are told when the processor refuses *path*."""
        desk = self.desk(processor, path, **options)
        with pytest.raises(BuildError) as caught:
            processor.process(desk)
        desk.clear_scratch()
        return desk.diagnose(caught.value), desk


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    project, staging = tmp_path / "project", tmp_path / "staging"
    (project / "assets").mkdir(parents=True)
    staging.mkdir()
    return Bench(project, staging)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of `npm/package-lock.json`, installed once per lock file and machine."""
    lock = (_LOCK / "package-lock.json").read_bytes()
    cache = os.environ.get("ASSETD_TEST_CACHE") or Path.home() / ".cache" / "assetd-tests"
    folder = Path(cache, hashlib.sha256(lock).hexdigest()[:16])
    if not folder.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.fail("npm is missing: apt-get install npm")
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_LOCK / name, fresh)
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--legacy-peer-deps"],
            cwd=fresh,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"npm ci failed:\n{done.stderr}")
        try:
            fresh.rename(folder)
        except OSError:
            shutil.rmtree(fresh)  # another test process was faster
    return folder / "node_modules"


@dataclass(frozen=True)
class CommandLine:
    """The tools' own command lines, run where a user would run them."""

    bin: Path
    folder: Path

    def __call__(self, tool: str, *arguments: str) -> bytes:
        """What *tool* writes to stdout."""
        done = subprocess.run(
            [self.bin / tool, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def file(self, name: str) -> bytes:
        """What it has written to the file *name*."""
        return (self.folder / name).read_bytes()


@pytest.fixture
def cli(bench: Bench, tools: Path) -> CommandLine:
    """The command lines of the tools that we keep warm, in the bench's project."""
    return CommandLine(tools / ".bin", bench.project)
