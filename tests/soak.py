"""`make soak`: the tests that survive storms, for hours instead of seconds, one part at a time.

    python -m tests.soak [PART…] [--seed N] [--again] [--list]

Each part writes what it prints to build/soak/PART.log.  A part that has passed with the code as
it is now is not run again (`--again` does), so a run that was cut short goes on where it was.
The seed is printed, and given back with `--seed`.
"""

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LOGS: Final = ROOT / "build" / "soak"
LAST_LINES: Final = 15


@dataclass(frozen=True)
class Part:
    """Some tests in their long form."""

    what: str
    tests: tuple[str, ...]
    environment: Mapping[str, int] = field(default_factory=dict)
    workers: int = 1
    """How many run side by side."""


PARTS: Final = {
    "convergence": Part(
        "10,000 sequences of what people do",
        (
            "tests/test_convergence.py::test_whatever_happens_the_daemon_ends_where_a_clean_build_does",
        ),
        # They wait more than they work.
        {"SEQUENCES": 10_000, "LENGTH": 20, "PARTS": 6},
        workers=6,
    ),
    "steps": Part(
        "a kill at every step of a batch",
        ("tests/test_crash.py", "-k", "every_step"),
        {"STEPS": 1000},
        workers=2,
    ),
    "kills": Part(
        "10,000 kills of a daemon at random moments",
        ("tests/test_crash.py", "-k", "any_moment"),
        {"KILLS": 10_000},
        workers=2,
    ),
    "power": Part("500 power cuts", ("tests/test_power.py",), {"CUTS": 500}),
    "disk": Part("every refusal of the disk", ("tests/test_disk.py",), {"ERRORS": 2000}, workers=2),
    "deafness": Part(
        "9,000 files while nobody reads, 100,000 by git",
        ("tests/test_deafness.py",),
        {"FILES": 9000, "CHECKOUT": 100_000},
    ),
    "workers": Part("10,000 kills of workers", ("tests/test_pool.py",), {"KILLS": 10_000}),
    "confinement": Part(
        "100,000 swaps of a folder for a link", ("tests/test_confinement.py",), {"SWAPS": 100_000}
    ),
    "record": Part("1,000 damaged records", ("tests/test_record.py",), {"DAMAGES": 1000}),
    "names": Part("names, sizes, kinds and times", ("tests/test_names.py",)),
    "clients": Part("1,000 clients at once", ("tests/test_control.py",), {"CLIENTS": 1000}),
    "endurance": Part(
        "a million edits, or what an hour takes",
        ("tests/test_endurance.py",),
        {"EDITS": 1_000_000, "EDIT_SECONDS": 3600},
    ),
    "fuzz": Part("1,000,000 inputs", ("tests/test_fuzz.py",), {"INPUTS": 1_000_000}),
    "sync": Part("100,000 syncs right after a write", ("tests/test_sync.py",), {"SYNCS": 100_000}),
}


def fingerprint() -> str:
    """Of all code that a part may run."""
    state = hashlib.sha256()
    for folder in ("daemon", "processors", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            state.update(path.read_bytes())
    return state.hexdigest()


def run(name: str, part: Part, seed: int) -> bool:
    """Run one part; says how it ended, and with what figures."""
    log = LOGS / f"{name}.log"
    began = time.monotonic()
    print(f"{name}: {part.what}; ASSETD_TEST_SEED={seed}; {log.relative_to(ROOT)}", flush=True)
    environment = {f"ASSETD_TEST_{key}": str(value) for key, value in part.environment.items()}
    # What several print at once is shown at the end only.
    shown = ("-n", str(part.workers), "-rP") if part.workers > 1 else ("-s",)
    command = [sys.executable, "-m", "pytest", "-v", "--timeout", "0", *shown, *part.tests]
    with open(log, "w") as file:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, **os.environ, "ASSETD_TEST_SEED": str(seed)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    text = log.read_text(errors="replace")
    for line in text.splitlines():
        if re.search(r"\d.*: .*\d|^ {2,}[\d,]+ ", line) and "::" not in line and len(line) < 200:
            print(f"    {line}")
    if done.returncode:
        print("\n".join(f"    {line}" for line in text.splitlines()[-LAST_LINES:]))
    verdict = "passed" if done.returncode == 0 else f"FAILED ({done.returncode})"
    print(f"{name}: {verdict} in {time.monotonic() - began:,.0f} s", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run what was asked for; 1 if anything fails."""
    grammar = argparse.ArgumentParser(prog="make soak", description=__doc__)
    grammar.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    grammar.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    grammar.add_argument("--again", action="store_true", help="also what has passed already")
    grammar.add_argument("--list", action="store_true", help="say what there is, and end")
    asked = grammar.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        grammar.error(f"no such part: {', '.join(sorted(unknown))}")
    if asked.list:
        for name, part in PARTS.items():
            print(f"{name:12} {part.what}")
        return 0
    LOGS.mkdir(parents=True, exist_ok=True)
    code = fingerprint()
    failed = []
    for name in asked.parts or PARTS:
        passed = LOGS / f"{name}.passed"
        if not asked.again and passed.exists() and passed.read_text() == code:
            print(f"{name}: has passed already")
            continue
        passed.unlink(missing_ok=True)
        if run(name, PARTS[name], asked.seed):
            passed.write_text(code)
        else:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}; the same again: --seed {asked.seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
