"""What a worker may touch: Landlock, by system calls.  Knows paths and rights, not whose they are.

A process that is `Confined` reads what it was given to read, writes what it was given to write,
opens no TCP connection, and signals nobody but what it has started; so does everything that it
starts from then on, and there is no way back.  The kernel sees to it, from version 5.13 on, and
with each ABI to a little more of it: https://docs.kernel.org/userspace-api/landlock.html
"""

import contextlib
import ctypes
import errno
import os
import re
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from assetd import place as places

# include/uapi/asm-generic/unistd.h; the same on every architecture but Alpha.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446

# include/uapi/linux/prctl.h
_SET_NO_NEW_PRIVS: Final = 38

# include/uapi/linux/landlock.h, all below.
_VERSION: Final = 1 << 0
_PATH_BENEATH: Final = 1
_RULE: Final = struct.Struct("=Qi")
"""`landlock_path_beneath_attr`: the rights, the descriptor; packed."""

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_CHAR: Final = 1 << 6
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
BIND_TCP: Final = 1 << 0
CONNECT_TCP: Final = 1 << 1
ABSTRACT_UNIX_SOCKET: Final = 1 << 0
SIGNAL: Final = 1 << 1

_SINCE: Final = ((1, MAKE_SYM), (2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
"""The highest right on files that each ABI knows."""
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Those that a rule about a single file may hold."""

READ: Final = EXECUTE | READ_FILE | READ_DIR
KEEP: Final = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE
"""What adds, replaces and drops files of a store."""
WRITE: Final = READ | KEEP | REMOVE_DIR | MAKE_SYM | MAKE_FIFO | MAKE_SOCK | REFER
_DEVICE: Final = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV

SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt"),
    *("/proc", "/sys", "/run/systemd/resolve", "/var/lib/gems"),
    *("/nix/store", "/gnu/store", "/run/current-system", "/snap"),
)
"""Programs, libraries and their settings, where there are such folders."""
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_OF_HOME: Final = (".gitconfig", ".config/git/config", ".config/git/ignore", ".gemrc")
"""Settings without which common tools refuse to run, and which should hold no secrets."""
_VARIABLES: Final = ("GEM_HOME", "GEM_PATH", "RUBYLIB", "NODE_PATH")
"""Variables that name where tools look for their libraries."""

NAME: Final = "sandbox"
"""Of the key in the configuration."""
_DENIED: Final = re.compile(r"EACCES|Permission denied|permission denied|EXDEV")
_PATH: Final = re.compile(r"[^\s'\"`:(),]*/[^\s'\"`:(),]*")


class ConfinementError(Exception):
    """The kernel has Landlock and refuses all the same; a sentence for people."""


def abi() -> int:
    """The version of Landlock's interface that we may use; 0 if there is none."""
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION))


def absence() -> str:
    """Why there is none: a sentence for people."""
    # The kernel has no reason to forbid the question: it was a filter of seccomp(2), as service
    # managers and containers set them.
    forbidden = _call(_CREATE_RULESET, None, 0, _VERSION) < 0 and ctypes.get_errno() == errno.EPERM
    return "a filter of system calls forbids it" if forbidden else "the kernel has no Landlock"


def level(number: int) -> str:
    """The sentence for people about an `abi`."""
    return f"landlock abi {number}" if number else f"none: {absence()}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker may touch: files and folders, absolute, with all that is below them."""

    project: str
    """Relative paths in messages start here."""
    read: tuple[str, ...]
    keep: tuple[str, ...] = ()
    """Where files may be read, added, replaced and dropped."""
    write: tuple[str, ...] = ()
    """Where it may do what it likes."""

    def row(self) -> dict[str, Any]:
        """The fact as a JSON object."""
        return asdict(self)

    @staticmethod
    def of(row: Mapping[str, Any]) -> "Bounds":
        """The fact that `row()` made."""
        read, keep, write = (tuple(row[name]) for name in ("read", "keep", "write"))
        return Bounds(row["project"], read, keep, write)

    def denied(self, error: BaseException) -> str | None:
        """Why *error* is the sandbox's doing and what to do about it; None if it is not.

        `access` is no business of Landlock: what it allows and an open did not, we forbade.
        """
        seen: set[int] = set()
        each: BaseException | None = error
        while each is not None and id(each) not in seen:
            seen.add(id(each))
            if isinstance(each, OSError) and (told := self._denied(each)) is not None:
                return told
            reason = getattr(each, "reason", None)  # as urllib has it
            each = reason if isinstance(reason, OSError) else each.__cause__ or each.__context__
        return self._heard(str(error))

    def _denied(self, error: OSError) -> str | None:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EXDEV}:
            return None
        named = [os.fsdecode(n) for n in (error.filename2, error.filename) if _is_path(n)]
        for name in named:
            if (told := self._forbidden(name)) is not None:
                return told
        if named or error.errno == errno.EXDEV:
            return None
        if error.errno == errno.EPERM:
            return "the sandbox forbids to signal what the worker has not started"
        return "the sandbox forbids TCP connections: `sandbox: off` in assetd.yml allows them"

    def _heard(self, text: str) -> str | None:
        """The same of what a tool said."""
        for line in text.splitlines():
            if _DENIED.search(line):
                # The last first: a tool names itself before what it could not open.
                for found in reversed(_PATH.findall(line)):
                    if (told := self._forbidden(found)) is not None:
                        return told
        return None

    def _forbidden(self, name: str) -> str | None:
        path = os.path.join(self.project, name)
        real = os.path.realpath(path)
        there = real
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        shown = places.of(path, self.project)
        if real != os.path.normpath(path):
            shown += f", which is {places.of(real, self.project)}"
        if _below(real, (*self.keep, *self.write)):
            return None
        if _below(real, self.read) or there != real:
            if not os.access(there, os.W_OK):
                return None
            return (
                f"the sandbox forbids to write {shown}: write to what `step.output()` and "
                "`step.scratch()` give, or name its folder in `sandbox_write` of assetd.yml"
            )
        if not os.access(real, os.R_OK):
            return None
        return (
            f"the sandbox forbids to open {shown}: "
            "name it, or its folder, in `sandbox_read` of assetd.yml"
        )


def surroundings() -> tuple[str, ...]:
    """What a program of this machine and this user needs to read, whatever it works on."""
    home = os.path.expanduser("~")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    variables = (os.environ.get(name, "").split(os.pathsep) for name in _VARIABLES)
    return reduced(
        [
            *SYSTEM,
            *(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix),
            *sys.path,
            *(tool_home(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)),
            *(folder for folders in variables for folder in folders),
            os.path.join(data, "assetd"),  # what `assetd tools install` has put there
            *(os.path.join(home, name) for name in _OF_HOME),
        ]
    )


def tool_home(folder: str) -> str:
    """What the programs in *folder* need: of `~/.rbenv/shims` all of `~/.rbenv`."""
    above, name = os.path.split(os.path.normpath(folder))
    home = os.path.expanduser("~")
    if name not in {"bin", "sbin", "shims"} or above == os.path.join(home, ".local"):
        return folder
    return folder if places.is_below(home, above) else above


def reduced(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of *paths* that are there, real and each once, without what lies in another one.

    The root is none of them: it would be everything.
    """
    there = {
        os.path.realpath(path) for path in paths if os.path.isabs(path) and os.path.exists(path)
    } - {"/"}
    found: list[str] = []
    for path in sorted(there):  # a folder comes before what is in it
        if not _below(path, found):
            found.append(path)
    return tuple(found)


class Confined:
    """The bounds that this process is in."""

    def __init__(self, bounds: Bounds) -> None:
        """Enter *bounds*; only from a process with a single thread.

        Raises:
            ConfinementError: The kernel refuses.
        """
        self.bounds = bounds
        self._inodes: dict[str, tuple[int, int]] = {}
        version = abi()
        handled = max((2 * right - 1 for since, right in _SINCE if version >= since), default=0)
        net = BIND_TCP | CONNECT_TCP if version >= 4 else 0
        scoped = ABSTRACT_UNIX_SOCKET | SIGNAL if version >= 6 else 0
        # A field that an ABI does not know must not be there, or be 0.
        ruleset = struct.pack("=QQQ", handled, net, scoped)
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        fd = _checked(_call(_CREATE_RULESET, ruleset, size, 0))
        try:
            for paths, rights in (
                (bounds.read, READ),
                (bounds.keep, KEEP),
                (bounds.write, WRITE),
                (_DEVICES, _DEVICE),
            ):
                for path in paths:
                    self._allow(fd, path, rights & handled)
            _checked(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
            _checked(_call(_RESTRICT_SELF, fd, 0))
        finally:
            os.close(fd)

    def _allow(self, ruleset: int, path: str, rights: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # what is not there cannot be touched either
        try:
            found = os.fstat(fd)
            self._inodes[path] = (found.st_dev, found.st_ino)
            if not stat.S_ISDIR(found.st_mode):
                rights &= _OF_FILES
            _checked(_call(_ADD_RULE, ruleset, _PATH_BENEATH, _RULE.pack(rights, fd), 0))
        finally:
            os.close(fd)

    def is_stale(self) -> bool:
        """Whether a folder that we may touch was replaced by another one of its name.

        The rules are about the one that was there: only a new process can have new ones.
        """
        for path, inode in self._inodes.items():
            with contextlib.suppress(OSError):
                found = os.stat(path)
                if (found.st_dev, found.st_ino) != inode:
                    return True
        return False


_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def _call(number: int, *arguments: int | bytes | None) -> int:
    # As varargs each has to be as wide as a register, which ctypes makes of no plain int.
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    return result


def _checked(result: int) -> int:
    if result < 0:
        why = os.strerror(ctypes.get_errno())
        raise ConfinementError(
            f"the sandbox cannot be set up: {why}; `sandbox: off` in assetd.yml does without"
        )
    return result


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(places.is_below(path, folder) for folder in folders)


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes)


def strings(value: object) -> Iterator[str]:
    """Every text in a value of JSON's kinds."""
    match value:
        case str():
            yield value
        case Mapping():
            for item in value.values():
                yield from strings(item)
        case list() | tuple():
            for item in value:
                yield from strings(item)
