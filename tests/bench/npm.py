"""Packages of npm by a lock file, installed once per lock file and machine."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LIBRARIES = HERE.parent / "processors" / "npm"
"""Bootstrap, Bulma and Foundation: the lock file of the processors' tests."""
PEERS = HERE / "npm"
"""The peers that come from npm."""


def packages(lock: Path) -> Path | None:
    """The `node_modules` of a folder with a lock file; None if npm cannot bring it."""
    digest = hashlib.sha256((lock / "package-lock.json").read_bytes()).hexdigest()
    cache = os.environ.get("ASSETD_TEST_CACHE") or Path.home() / ".cache" / "assetd-tests"
    folder = Path(cache, digest[:16])
    if folder.exists():
        return folder / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        return None
    print(f"npm ci, once, for {lock.parent.name}/{lock.name}", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock / name, fresh)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"],
        cwd=fresh,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        shutil.rmtree(fresh)
        return None
    try:
        fresh.rename(folder)
    except OSError:
        shutil.rmtree(fresh)  # another process was faster
    return folder / "node_modules"
