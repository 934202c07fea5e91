"""The power goes: what the disk has by then is all that is left, and that is enough.

The project is on an ext4 of its own, in an image behind a loop device.  What the image holds at
one instant is what the kernel has handed to the disk, which is what a power cut leaves of it.
The kernel does so when it likes, and every five seconds for names and every thirty for contents;
the test makes it happen sooner, in any order that the kernel might: the journal is committed by
a sync of something else, and single files are written back.
"""

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assetd import registry
from assetd.engine import Engine, Order
from assetd.model import EntryState
from assetd.record import Reader, Record
from assetd.stamp import digest_bytes
from assetd.testing import InlinePool, Site, wait_for

CUTS = int(os.environ.get("ASSETD_TEST_CUTS", "8"))
DURABILITIES = ("off", "normal", "full")
IMAGE_BYTES = 24 << 20


def mutate(site: Site, dice: random.Random) -> None:
    """One thing that people do to their sources."""
    n = dice.randrange(8)
    match dice.randrange(6):
        case 0 | 1:
            site.write(f"assets/img/{n}.txt", dice.randbytes(dice.randrange(20_000)))
        case 2:
            # Half of it would be a mistake in a source, which is another matter.
            site.write("assets/css/vars.new~", f"$c: c{dice.randrange(99)};")
            _sync(site.root / "assets/css/vars.new~")
            os.rename(site.root / "assets/css/vars.new~", site.root / "assets/css/_vars.scss")
        case 3:
            site.write(f"assets/js/lib/{n}.js", f"{dice.random()}")
        case 4:
            (site.root / f"assets/img/{n}.txt").unlink(missing_ok=True)
        case _:
            shutil.rmtree(site.root / "assets/moved", ignore_errors=True)
            site.write(f"assets/moved/{dice.randrange(3)}/{n}.txt", "moved")


def rebuild(site: Site, *, take_over: bool = False) -> list[str]:
    """What `assetd build` does, in this process; gives what was told."""
    told: list[str] = []
    engine = Engine(
        registry.load(str(site.root / "assetd.yml")),
        lambda event, **fields: told.append(f"{event} {fields}"),
        watching=False,
        take_over=take_over,
        open_pool=InlinePool,
    )
    done: list[Order] = []
    engine.build(Order(), done.append)
    engine.run_until(lambda: bool(done))
    wrong = [f"{e.source.path}: {e.problem}" for e in engine.record.wrong()]
    engine.stop()
    assert wrong == [], told
    return told


class Machine:
    """A file system of its own, whose disk can be looked at while it is in use."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.image = folder / "disk.img"
        self.mounted = folder / "disk"
        self.mounted.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-J", "size=4", str(self.image))

    def mount(self) -> None:
        """Mount it; skips where we may not."""
        _run("mount", "-o", "loop,noatime", str(self.image), str(self.mounted))

    def unmount(self) -> None:
        wait_for(
            lambda: _tried("umount", str(self.mounted)).returncode == 0, "the disk to be let go"
        )

    def cut(self, image: Path) -> None:
        """Copy what the disk has at this instant to *image*.

        Two copies that are the same: nothing was written between the end of the first and the
        beginning of the second, so they are what the disk had at that moment, and no mixture.
        """
        before = b""

        def still() -> bool:
            nonlocal before
            now = self.image.read_bytes()
            same, before = now == before, now
            return same

        wait_for(still, "the disk to pause")
        image.write_bytes(before)

    def write_back(self, dice: random.Random) -> None:
        """What the kernel does at any time: write one file's content, or the journal."""
        if dice.random() < 0.5:
            other = self.mounted / "something-else"
            other.write_bytes(dice.randbytes(10))
            _sync(other)
            return
        files = [Path(where, name) for where, _, names in os.walk(self.mounted) for name in names]
        if files:
            with contextlib.suppress(OSError):
                _sync(dice.choice(files))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _tried(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = _tried(*command)
    if done.returncode != 0:
        pytest.skip(f"we may not mount a file system here: {done.stderr.strip()}")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount file systems")
    found = Machine(tmp_path / "machine")
    found.mount()
    try:
        yield found
    finally:
        found.unmount()


def site_on(machine: Machine, durability: str) -> Site:
    site = Site(
        machine.mounted / "site", f"mounts: [assets]\nworkers: 1\ndurability: {durability}\n"
    )
    site.write("assets/css/site.scss", '@import "vars"; a { b: $c }')
    site.write("assets/css/_vars.scss", "$c: red;")
    site.write("assets/js/app.js.concat", 'files: ["lib/*.js"]')
    site.write("assets/js/lib/a.js", "a")
    for n in range(4):
        site.write(f"assets/img/{n}.txt", f"image {n}")
    _run("sync", "-f", str(site.root))
    return site


def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is another boot than that of the record, as far as anybody can see."""
    monkeypatch.setattr("assetd.recovery.boot_id", lambda: f"boot {time.monotonic()}")


def check_after(site: Site, *, orphans: bool = False) -> list[str]:
    """Build, and see that the record claims nothing that is not so; gives what was told.

    Args:
        site: As the disk has it.
        orphans: Whether outputs that nobody knows of any more may be left, whose sources
            are lost or had gone; where a source is not lost, `--take-over` replaces them.
    """
    told = rebuild(site, take_over=orphans)
    expected = site.clean_build()
    for path in site.outputs():
        if orphans and path not in expected:
            (site.root / "public" / path).unlink()
    assert site.outputs() == expected, told
    assert not [p for p in (site.root / ".assetd/staging").rglob("*") if p.is_file()], told
    with contextlib.closing(Reader(str(site.root / ".assetd/record.sqlite"))) as reader:
        reader.check()
        claimed = {output.path: output.digest for output in reader.outputs()}
        assert all(entry.state is EntryState.OK for entry in reader.entries())
    assert claimed == {path: digest_bytes(content) for path, content in site.outputs().items()}
    return told


@pytest.mark.parametrize("durability", DURABILITIES)
def test_after_a_power_cut_the_record_claims_nothing_that_is_not_so(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """And one start brings back the outputs of a clean build, whatever the disk has lost."""
    seed = int(os.environ.get("ASSETD_TEST_SEED", random.randrange(1 << 32)))
    print(f"ASSETD_TEST_SEED={seed}")
    dice = random.Random(f"{seed} {durability}")
    site = site_on(machine, durability)
    images = []
    with site.daemon() as daemon:
        for cut in range(max(1, CUTS // len(DURABILITIES))):
            for _ in range(dice.randrange(1, 6)):
                with contextlib.suppress(OSError):
                    mutate(site, dice)
                if dice.random() < 0.5:
                    daemon.ask("status")
                if dice.random() < 0.3:
                    daemon.sync()
                machine.write_back(dice)
            images.append(tmp_path / f"cut{cut}.img")
            machine.cut(images[-1])
            if len(images) == 20:  # so that the disk that holds them is not filled
                check_images(images, machine, monkeypatch, durability)
    check_images(images, machine, monkeypatch, durability)


def check_images(
    images: list[Path], machine: Machine, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    another_boot(monkeypatch)
    there = machine.mounted.with_name("after")
    there.mkdir(exist_ok=True)
    while images:
        image = images.pop()
        _run("mount", "-o", "loop,noatime", str(image), str(there))
        try:
            site = Site.__new__(Site)
            site.root = there / "site"
            check_after(site, orphans=durability == "off")
        finally:
            wait_for(lambda: _tried("umount", str(there)).returncode == 0, "the copy")
        image.unlink()


def test_what_was_reported_under_full_survives_a_power_cut(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources, too, if whoever wrote them saw to it: nothing is left to be built."""
    site = site_on(machine, "full")
    with site.daemon() as daemon:
        for n in range(4):
            path = site.write(f"assets/new/{n}.txt", f"new {n}" * 500)
            _sync(path)
            _sync(path.parent)
        assert daemon.sync() == []
        machine.cut(tmp_path / "cut.img")
        expected = site.outputs()
    another_boot(monkeypatch)
    there = machine.mounted.with_name("after")
    there.mkdir()
    _run("mount", "-o", "loop,noatime", str(tmp_path / "cut.img"), str(there))
    try:
        site.root = there / "site"
        found = {path: content for path, content in site.outputs().items() if "new" in path}
        assert found == {path: content for path, content in expected.items() if "new" in path}
        with contextlib.closing(Reader(str(site.root / ".assetd/record.sqlite"))) as reader:
            known = {output.path: output.digest for output in reader.outputs()}
        assert all(known[path] == digest_bytes(content) for path, content in found.items())
    finally:
        wait_for(lambda: _tried("umount", str(there)).returncode == 0, "the copy")


# -- what was found ---------------------------------------------------------------------------


def powered_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a daemon that is cut short leaves the record, but for what the disk has lost."""
    with site.daemon() as daemon:
        assert daemon.sync() == []
        daemon.kill()
    another_boot(monkeypatch)


def copied(site: Site) -> Path:
    """The state folder as it is now, elsewhere."""
    there = site.root.with_name("state-before")
    shutil.copytree(site.root / ".assetd", there, symlinks=True)
    return there


def put_back(site: Site, state: Path, *but: str) -> None:
    kept: dict[str, Any] = {name: (site.root / ".assetd" / name).read_bytes() for name in but}
    shutil.rmtree(site.root / ".assetd")
    shutil.copytree(state, site.root / ".assetd")
    for name, content in kept.items():
        (site.root / ".assetd" / name).write_bytes(content)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/a.txt", "a")
    site.write("assets/b.txt", "b" * 10_000)
    site.build()
    return site


@pytest.mark.parametrize("left", [b"", b"b" * 4096])
def test_a_new_output_whose_content_and_record_were_lost_is_made_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    """Its name reached the disk first: it was taken for somebody else's, and kept for ever."""
    before = copied(site)
    site.write("assets/new.txt", "b" * 10_000)
    powered_off(site, monkeypatch)
    put_back(site, before)
    (site.root / ".assetd/record.sealed").unlink()
    with contextlib.closing(Record(str(site.root / ".assetd/record.sqlite"))) as record:
        record.set_meta(clean="0", boot="another")
    (site.root / "public/new.txt").write_bytes(left)
    check_after(site)


def test_a_file_of_somebody_else_stays_after_a_power_cut_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the beginning of what we would put there is taken for ours."""
    powered_off(site, monkeypatch)
    site.write("assets/new.txt", "b" * 10_000)
    site.write("public/new.txt", "bbc")
    with pytest.raises(AssertionError, match="not ours"):
        rebuild(site)
    assert site.output("new.txt") == "bbc"


def test_an_output_that_is_newer_than_the_record_is_known_by_the_ledger(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record lost its last commits, and the sources went back, too."""
    before = copied(site)
    site.write("assets/a.txt", "other a")
    site.write("assets/new.txt", "new")
    powered_off(site, monkeypatch)
    put_back(site, before, "ledger")
    site.write("assets/a.txt", "a third a")
    site.remove("assets/new.txt")
    told = check_after(site)
    assert any(line.startswith("record_behind") for line in told)
    assert sorted(site.outputs()) == ["a.txt", "b.txt"]
    assert not (site.root / ".assetd/kept").exists()


@pytest.mark.parametrize("left", [b"", b"b" * 4096])
def test_an_output_that_was_deleted_again_and_comes_back_half_written_goes(
    site: Site, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    """Its name reached the disk, its content and its deletion did not: nobody's, it stayed."""
    before = copied(site)
    site.write("assets/new.txt", "b" * 10_000)
    site.build()
    site.remove("assets/new.txt")
    powered_off(site, monkeypatch)
    put_back(site, before, "ledger")
    (site.root / "public/new.txt").write_bytes(left)
    check_after(site)


def test_what_somebody_wrote_where_an_output_was_deleted_stays(site: Site) -> None:
    """The machine did not go down: nothing of ours can be half written."""
    before = copied(site)
    site.write("assets/new.txt", "b" * 10_000)
    site.build()
    site.remove("assets/new.txt")
    site.build()
    put_back(site, before, "ledger")
    site.write("public/new.txt", "")
    rebuild(site)
    assert site.outputs()["new.txt"] == b""
