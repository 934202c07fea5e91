"""A day in the life of a daemon, compressed: nothing that it holds grows with what it has done.

`ASSETD_TEST_EDITS` says how many edits, `ASSETD_TEST_EDIT_SECONDS` for how long at the most, and
`ASSETD_TEST_SEED` repeats a run.  What is measured is printed.
"""

import os
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from assetd.testing import Daemon, Site, wait_for

EDITS = int(os.environ.get("ASSETD_TEST_EDITS", "600"))
SECONDS = float(os.environ.get("ASSETD_TEST_EDIT_SECONDS", "1e9"))
LONG = 50_000
"""From so many edits on the figures mean something."""
GROWTH_BYTES = 1 << 20
"""What the daemon's memory may grow by in 100,000 edits."""
SAMPLES = 20 if EDITS >= LONG else 6
PROBES = 15 if EDITS >= LONG else 5
GROUP = 250 if EDITS >= LONG else 25
"""Edits after which they wait for the daemon: a million in an hour are 278 in a second."""


@dataclass(frozen=True)
class Sample:
    """What the daemon holds at one moment, at rest."""

    edits: int
    memory: int
    """Bytes of its own process, and of nobody else."""
    descriptors: int
    threads: int
    processes: int
    staged: int
    state_bytes: int
    cpu_seconds: float
    """Of its own process, since its start."""
    latency_seconds: float
    """From a save to the proof that it is built, at best of some."""


def descendants(pid: int) -> list[int]:
    """The processes that it has started, and those that they have."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for file in found for child in file.read_text().split()]
    return children + [each for child in children for each in descendants(child)]


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def sample(site: Site, daemon: Daemon, edits: int) -> Sample:
    pid = daemon.process.pid
    times = []
    for probe in range(PROBES):
        began = time.monotonic()
        site.write("assets/probe.txt", f"{edits} {probe}")
        assert daemon.sync() == []
        times.append(time.monotonic() - began)
        assert site.output("probe.txt") == f"{edits} {probe}"
    wait_for(
        lambda: all(w["state"] == "idle" for w in daemon.status()["workers"]), "the workers to rest"
    )
    state = site.root / ".assetd"
    staged = [p for p in (state / "staging").rglob("*") if p.is_file() and "private" not in p.parts]
    return Sample(
        edits,
        memory(pid),
        len(os.listdir(f"/proc/{pid}/fd")),
        threads(pid),
        len(descendants(pid)),
        len(staged),
        sum(p.stat().st_size for p in state.glob("record.sqlite*")),
        cpu_seconds(pid),
        min(times),
    )


class People:
    """They edit, save in every way, make files and folders, move and delete them."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site, self.dice, self.root = site, dice, site.root / "assets"
        self.serial = 0

    def file(self) -> Path:
        return self.root / f"{self.dice.randrange(20)}" / f"{self.dice.randrange(40)}.txt"

    def edit(self) -> None:
        self.serial += 1
        path = self.file()
        match self.dice.randrange(20):
            case 0:
                self.site.write("assets/css/_p.scss", f"$c: c{self.serial % 100};")
            case 1:
                self.site.replace("assets/js/parts/a.js", f"{self.serial}")
            case 2 if path.exists():
                path.rename(path.with_name(f"moved-{self.dice.randrange(40)}.txt"))
            case 3:
                path.unlink(missing_ok=True)
            case 4:
                folder = self.root / f"new-{self.dice.randrange(5)}"
                other = self.root / f"other-{self.dice.randrange(5)}"
                if other.exists():
                    self.site.remove(f"assets/{other.name}")
                elif folder.exists():
                    folder.rename(other)
                else:
                    self.site.write(f"assets/{folder.name}/x.txt", f"{self.serial}")
            case 5:
                self.site.write("assets/css/broken.scss", "a { b: $no }")
                self.site.write("assets/css/broken.scss", f"a {{ b: {self.serial % 100} }}")
            case 6 | 7 | 8:
                temporary = path.with_name(f".{path.name}.tmp~")
                temporary.write_text(f"{self.serial}")
                temporary.rename(path)
            case _:
                path.write_text(f"{self.serial}")


def test_nothing_grows_with_the_number_of_edits(tmp_path: Path) -> None:
    """Memory, descriptors, threads, processes, staging, and the time that a save takes."""
    seed = int(os.environ.get("ASSETD_TEST_SEED", random.randrange(1 << 32)))
    print(f"ASSETD_TEST_SEED={seed}")
    config = "mounts: [assets]\nworkers: 2\nstore: 20MB\ndurability: off\n"
    site = Site(tmp_path / "site", config)
    people = People(site, random.Random(seed))
    for number in range(20):
        site.write(f"assets/{number}/0.txt", "0")
        site.write(f"assets/css/{number}.scss", f"@import 'p'; a{number} {{ b: $c }}")
    site.write("assets/css/_p.scss", "$c: red;")
    site.write("assets/js/parts/a.js", "a")
    site.write("assets/js/app.js.concat", "files: ['parts/*.js']")
    samples: list[Sample] = []
    with site.daemon() as daemon:
        began, passed = time.monotonic(), 0.0
        while people.serial < EDITS and passed < SECONDS:
            if max(people.serial / EDITS, passed / SECONDS) >= len(samples) / SAMPLES:
                samples.append(sample(site, daemon, people.serial))
            for _ in range(min(GROUP, EDITS - people.serial)):
                people.edit()
            daemon.sync()
            passed = time.monotonic() - began
        assert daemon.sync() == []
        samples.append(sample(site, daemon, people.serial))
        assert site.outputs() == site.clean_build()
        assert "Traceback" not in daemon.log
    tell(samples)
    warm = samples[len(samples) // 4 :]
    first, last = warm[0], warm[-1]
    # A descriptor more or less is a client that is just being served.
    assert last.threads == first.threads
    assert last.processes == first.processes == 3  # the fork server and two workers
    assert abs(last.descriptors - first.descriptors) <= 1
    assert last.staged == 0
    allowed = GROWTH_BYTES * (last.edits - first.edits) / 100_000
    grown = statistics.median(s.memory for s in warm[-3:]) - statistics.median(
        s.memory for s in warm[:3]
    )
    assert grown < allowed + (8 << 20)
    if people.serial >= LONG:
        assert grown < allowed
        assert cost(warm[len(warm) // 2 :]) < 1.1 * cost(warm[: len(warm) // 2])


def cost(samples: list[Sample]) -> float:
    """Processor seconds of the daemon for an edit, over some samples."""
    first, last = samples[0], samples[-1]
    return (last.cpu_seconds - first.cpu_seconds) / (last.edits - first.edits)


def tell(samples: list[Sample]) -> None:
    """Print what was measured."""
    print("    edits  memory MiB  fds  threads  record MiB  ms a save  CPU ms an edit")
    for before, each in zip([samples[0], *samples], samples, strict=False):
        spent = (each.cpu_seconds - before.cpu_seconds) / max(1, each.edits - before.edits)
        print(
            f"{each.edits:9,} {each.memory / (1 << 20):11.2f} {each.descriptors:4} "
            f"{each.threads:8} {each.state_bytes / (1 << 20):11.2f} "
            f"{each.latency_seconds * 1000:10.2f} {spent * 1000:15.3f}"
        )
    warm = samples[len(samples) // 4 :]
    edits = warm[-1].edits - warm[0].edits
    grown = (warm[-1].memory - warm[0].memory) / (1 << 20)
    half = len(warm) // 2
    print(
        f"after warm-up, {edits:,} edits: {grown:+.2f} MiB ({grown / edits * 100_000:+.2f} in "
        f"100,000); a save costs {cost(warm[half:]) / cost(warm[:half]):.2f} times what it did, "
        f"takes {warm[-1].latency_seconds / warm[0].latency_seconds:.2f} times as long"
    )
