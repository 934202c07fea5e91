"""Units of the service manager for one project: their names, texts and places.

Knows systemd's files; runs nothing, and asks nobody but the file system.

What is installed is a unit as it is shipped, word for word, and a drop-in that holds what is of
the project and of this machine.  So a later version replaces the unit without a merge, and what
people change with `systemctl edit` is in a third file that we never touch.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Final

from assetd.errors import UsageError

NOTIFY_RELOAD_SINCE: Final = 253
"""The first systemd that has `Type=notify-reload`."""
NAME_LIMIT: Final = 255
"""Bytes that systemd takes for the name of a unit."""
DROP_IN: Final = "50-project.conf"
"""Sorts before the `override.conf` of `systemctl edit`, which so has the last word."""
TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp hides

_WRITTEN_BY: Final = "# Written by `assetd service install`"
_PLAIN: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz:_.")


class Scope(StrEnum):
    """Whose service manager."""

    USER = "user"
    SYSTEM = "system"

    @staticmethod
    def of(*, is_users: bool) -> "Scope":
        """That of a user's service, or of the machine's."""
        return Scope.USER if is_users else Scope.SYSTEM

    @property
    def template(self) -> str:
        """The file that is shipped for it."""
        return "assetd.service" if self is Scope.USER else "assetd@.service"

    def folder(self, environment: Mapping[str, str]) -> str:
        """Where its units go."""
        if self is Scope.SYSTEM:
            return "/etc/systemd/system"
        home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return os.path.join(home, "systemd", "user")


class Written(StrEnum):
    """What became of a file."""

    NEW = "written"
    CHANGED = "updated"
    SAME = "already there"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Unit:
    """One project's unit: its name and where its two files are."""

    scope: Scope
    name: str
    file: str
    drop_in: str


@dataclass(frozen=True, slots=True)
class Setting:
    """What the drop-in is made from.

    Attributes:
        description: One line.
        words: Program and arguments of the daemon.
        writable: Folders that it writes to; they exist.
        seen: Other files and folders that it has to find.
        environment: Variables that it needs.
        systemd: The version of the service manager.
        user: Who it runs as; None in a user's own manager.
    """

    description: str
    words: tuple[str, ...]
    writable: tuple[str, ...]
    seen: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    systemd: int
    user: str | None


def unit(scope: Scope, project: str, environment: Mapping[str, str]) -> Unit:
    """The unit of the project in folder *project*, installed or not.

    Raises:
        UsageError: systemd cannot have a unit for such a path.
    """
    instance = escape(project)
    name = f"assetd{'-' if scope is Scope.USER else '@'}{instance}.service"
    if len(name) > NAME_LIMIT:
        raise UsageError(
            f"{project}: too long a path for a unit of systemd: {len(name)} bytes of "
            f"{NAME_LIMIT}; a link to it from elsewhere does not help, moving it does"
        )
    folder = scope.folder(environment)
    file = name if scope is Scope.USER else scope.template
    return Unit(scope, name, os.path.join(folder, file), os.path.join(folder, f"{name}.d", DROP_IN))


def escape(path: str) -> str:
    """What `systemd-escape --path` prints for an absolute path."""
    raw = os.fsencode(os.path.normpath(path)).strip(b"/")
    if not raw:
        return "-"
    escaped = "".join(
        "-" if byte == 0x2F else chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in raw
    )
    return f"\\x2e{escaped[1:]}" if escaped.startswith(".") else escaped


def template(scope: Scope) -> str:
    """The text of the unit that is shipped."""
    return files("assetd").joinpath("units", scope.template).read_text("utf-8")


def settings(unit: Unit, setting: Setting) -> str:
    """The text of the drop-in.

    Raises:
        UsageError: A path cannot be written down in such a file.
    """
    scope = "--user " if unit.scope is Scope.USER else ""
    lines = [
        f"{_WRITTEN_BY}, which writes it anew each time.  Your own",
        f"# changes belong where `systemctl {scope}edit '{unit.name}'` puts them.",
        "[Unit]",
        f"Description={_plain(setting.description).replace('%', '%%')}",
        "",
        "[Service]",
    ]
    if setting.systemd >= NOTIFY_RELOAD_SINCE:
        lines += ["# It takes SIGHUP for a reload, and `systemctl reload` waits until it is done.",
                  "Type=notify-reload", "ExecReload="]  # fmt: skip
    words = " ".join(_quoted(word).replace("$", "$$") for word in setting.words)
    lines += ["ExecStart=", f"ExecStart={words}"]
    if setting.user is not None:
        lines.append(f"User={setting.user}")
    lines.append("Environment=")
    lines += [f"Environment={_quoted(f'{name}={value}')}" for name, value in setting.environment]
    writable = _outermost(setting.writable)
    lines += ["ReadWritePaths=", f"ReadWritePaths={' '.join(map(_quoted, writable))}"]
    hidden = [p for p in (*setting.writable, *setting.seen) if _is_below(p, TEMPORARY)]
    if hidden:
        lines += [
            f"# Relaxed: {_plain(hidden[0])} would be hidden.",
            "PrivateTmp=no",
        ]
    return "\n".join(lines) + "\n"


def write(unit: Unit, settings: str) -> dict[str, Written]:
    """Put both files in place; gives what became of each.

    Raises:
        UsageError: A file is there that is not ours, or cannot be written.
    """
    texts = {unit.file: template(unit.scope), unit.drop_in: settings}
    old = {path: _read(path) for path in texts}
    for path, text in old.items():
        _check_ours(unit, path, text)
    done = {}
    for path, text in texts.items():
        if old[path] == text:
            done[path] = Written.SAME
            continue
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # A rename: the service manager may read it at any time.
            with open(f"{path}.new~", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{path}.new~", path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        done[path] = Written.NEW if old[path] is None else Written.CHANGED
    return done


def remove(unit: Unit) -> dict[str, Written]:
    """Take away what `write` wrote, and folders that are empty then.

    The system's unit serves all its projects: it goes with the last of them.

    Raises:
        UsageError: A file is not ours, or cannot be removed.
    """
    ours = [unit.drop_in]
    if unit.scope is Scope.USER or not _others(unit):
        ours.append(unit.file)
    there = {path: text for path in ours if (text := _read(path)) is not None}
    for path, text in there.items():
        _check_ours(unit, path, text)
    for path in there:
        try:
            os.unlink(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be removed: {error.strerror}") from error
    with contextlib.suppress(OSError):  # people's own settings are in it, or it never was
        os.rmdir(os.path.dirname(unit.drop_in))
    return dict.fromkeys(there, Written.REMOVED)


def is_installed(unit: Unit) -> bool:
    """Whether any of the project's own files is there."""
    return os.path.lexists(unit.drop_in) or (
        unit.scope is Scope.USER and os.path.lexists(unit.file)
    )


def installed(project: str, environment: Mapping[str, str]) -> Unit | None:
    """The unit that is installed for the project in folder *project*, your own first."""
    for scope in Scope:
        with contextlib.suppress(UsageError):  # too long a path for any
            found = unit(scope, project, environment)
            if is_installed(found):
                return found
    return None


def journal(scope: Scope, name: str) -> str:
    """The command that shows the log of a unit."""
    return f"journalctl {'--user ' if scope is Scope.USER else ''}-u {shlex.quote(name)}"


def version(text: str) -> int:
    """The number in what `systemctl --version` prints; 0 if there is none."""
    found = re.match(r"systemd (\d+)", text)
    return int(found[1]) if found else 0


def _others(unit: Unit) -> list[str]:
    """Drop-ins of other projects that use the same unit."""
    folder = os.path.dirname(unit.file)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [
        name
        for name in names
        if name.startswith("assetd@")
        and name != os.path.basename(os.path.dirname(unit.drop_in))
        and os.path.lexists(os.path.join(folder, name, DROP_IN))
    ]


def _check_ours(unit: Unit, path: str, text: str | None) -> None:
    """Refuse what somebody else wrote: our files begin as ours always did."""
    first = template(unit.scope).partition("\n")[0] if path == unit.file else _WRITTEN_BY
    if text is not None and not text.startswith(first):
        raise UsageError(
            f"{path}:1: expected {first!r}, found {text.partition(chr(10))[0]!r}: `assetd service` "
            "did not write it and leaves it alone; move it out of the way"
        )


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _plain(text: str) -> str:
    """*text*, if such a file can hold it."""
    try:
        text.encode("utf-8")
        fits = text.isprintable()
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise UsageError(
            f"{text!r}: a unit of systemd cannot hold such a name: "
            "expected UTF-8 without control characters; rename it"
        )
    return text


def _quoted(word: str) -> str:
    """One word of a setting that is a list of words."""
    escaped = _plain(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _outermost(paths: Sequence[str]) -> list[str]:
    return [p for p in dict.fromkeys(paths) if not _is_below(p, [q for q in paths if q != p])]
