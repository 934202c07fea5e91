"""A project handed to the service manager, and taken back from it.

Runs `systemctl`, and says each command that it ran; what a unit says is `service`'s.
"""

import argparse
import contextlib
import json
import os
import pwd
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from assetd import command, service, words
from assetd.errors import AlreadyRunningError, AssetdError, NotRunningError, UsageError
from assetd.service import Scope, Unit, Written

SCHEMA: Final = 1
LINES_SHOWN: Final = 8
"""Of what a service said before it failed."""
OWN_USER: Final = "assetd"
"""Who a service of the system runs as, where the project belongs to root."""
NOBODY: Final = 65_534
"""As whom assetd is tried before its own user is there."""
SYSTEM_DATA: Final = "/var/lib"
"""The service of the system looks for Node packages below it, as `assetd@.service` says."""


@dataclass(slots=True)
class _Told:
    """What was done, as it is done."""

    unit: Unit
    files: dict[str, Written] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    user: str | None = None

    def facts(self, state: str) -> dict[str, Any]:
        """What `--json` prints.  Keys are only ever added."""
        return {
            "schema": SCHEMA,
            "scope": self.unit.scope.value,
            "unit": self.unit.name,
            "state": state,
            "user": self.user,
            "files": [{"path": path, "state": each.value} for path, each in self.files.items()],
            "folders": self.folders,
            "commands": self.commands,
        }


def run(arguments: argparse.Namespace) -> int:
    """Install or uninstall; returns the exit code.

    Args:
        arguments: `do` (install or uninstall), `scope` (user, system or None), `run_as`.
    """
    default = Scope.SYSTEM if os.geteuid() == 0 else Scope.USER
    scope = default if arguments.scope is None else Scope(arguments.scope)
    if arguments.run_as is not None and scope is Scope.USER:
        raise UsageError("--run-as goes with --system: a service of yours runs as you")
    if scope is Scope.SYSTEM and os.geteuid() != 0:
        raise UsageError(
            "--system takes root: `sudo assetd service …`; without it the service is yours alone"
        )
    return _install(arguments, scope) if arguments.do == "install" else _uninstall(arguments, scope)


def _install(arguments: argparse.Namespace, scope: Scope) -> int:
    # Without its plugins: who writes them is not to run code as root.
    config = (
        command.configuration(arguments)
        if scope is Scope.SYSTEM
        else command.load(arguments).config
    )
    unit = service.unit(scope, config.project, os.environ)
    told = _Told(unit)
    other = _of_the_other(scope, config.project)
    if other is not None:
        raise UsageError(f"{other}; two would get into each other's way")
    systemd = _reach(scope)
    argv = (sys.executable, "-P", "-m", "assetd", "run", "--config", config.file)
    made_for = _user(arguments.run_as, config.project) if scope is Scope.SYSTEM else None
    settings = service.settings(
        unit,
        service.Setting(
            description=f"assetd: builds the web assets of {config.project}, and keeps them right",
            words=argv,
            writable=(config.project, config.out_dir, config.state_dir),
            seen=(
                *(mount.folder for mount in config.mounts),
                *config.plugins,
                *_python_folders(),
            ),
            environment=_environment(scope),
            systemd=systemd,
            user=made_for,
        ),
    )
    holder = _holder(arguments)
    ours = _show(unit, "MainPID") == str(holder)
    if holder is not None and not ours:
        raise AlreadyRunningError(
            f"another assetd holds this project (pid {holder}), and the service could not start: "
            "`assetd stop`, then install it again"
        )
    # Whatever is refused is refused before anything is done.
    if made_for is not None:
        creates = not _is_user(made_for, may_create=arguments.run_as is None)
        check_as(made_for, config.file)
        _check_owner((config.out_dir, config.state_dir), made_for, creates=creates)
        told.user = made_for
        if creates:
            _make_user(told, made_for)
    for folder in (config.out_dir, config.state_dir):
        _hand_over(told, folder, made_for)
    told.files = service.write(unit, settings)
    changed = any(each is not Written.SAME for each in told.files.values())
    if changed or _show(unit, "NeedDaemonReload") == "yes":
        _systemctl(told, "daemon-reload")
    was_enabled = _show(unit, "UnitFileState") == "enabled"
    if not was_enabled:
        _systemctl(told, "enable", unit.name)
    was_active = _show(unit, "ActiveState") == "active"
    if changed or not was_active:
        command.say("starting; this waits until all is built")
        if _show(unit, "ActiveState") == "failed":
            _systemctl(told, "reset-failed", unit.name)  # it may have used up its starts
        _systemctl(told, "restart", unit.name)
    new = Written.NEW in told.files.values()
    state = "installed" if new else "updated" if told.commands else "already installed"
    _print(arguments, told, state)
    with (
        contextlib.suppress(NotRunningError),
        contextlib.closing(command.connect(arguments)) as door,
    ):
        command.say_how_it_goes(door.ask("status"))
    if scope is Scope.USER and not _lingers():
        command.say(
            "it runs while you are logged in; `loginctl enable-linger` keeps it running after that"
        )
    return command.OK


def _uninstall(arguments: argparse.Namespace, scope: Scope) -> int:
    try:
        project = os.path.dirname(command.config_file(arguments))
    except UsageError:
        # The project is gone, or its configuration; its service is still to be removed.
        project = os.path.realpath(arguments.directory or ".")
        if not service.is_installed(service.unit(scope, project, os.environ)):
            raise
    unit = service.unit(scope, project, os.environ)
    told = _Told(unit)
    if not service.is_installed(unit):
        _print(arguments, told, "was not installed")
        other = _of_the_other(scope, project)
        if other is not None:
            command.say(other)
        return command.OK
    _reach(scope)
    # Of a unit that was never loaded this fails, and there is nothing to stop.
    _systemctl(told, "disable", "--now", unit.name, check=False)
    told.files = service.remove(unit)
    _systemctl(told, "daemon-reload")
    if _show(unit, "ActiveState") == "failed":
        _systemctl(told, "reset-failed", unit.name, check=False)
    _print(arguments, told, "uninstalled")
    command.say("outputs and state stay: `assetd clean` removes them")
    if unit.file in told.files and scope is Scope.SYSTEM and _is_made(OWN_USER):
        command.say(f"so does the user {OWN_USER}: `userdel {OWN_USER}` removes it")
    return command.OK


def _of_the_other(scope: Scope, project: str) -> str | None:
    """That the project is a service of the other scope, as a sentence, if it is one."""
    other = Scope.SYSTEM if scope is Scope.USER else Scope.USER
    unit = service.unit(other, project, os.environ)
    if not service.is_installed(unit):
        return None
    whose, sudo = ("the machine", "sudo ") if other is Scope.SYSTEM else ("yours", "")
    return (
        f"{unit.name} is installed for this project, as a service of {whose}: "
        f"`{sudo}assetd service uninstall --{other.value}` takes it away"
    )


def _print(arguments: argparse.Namespace, told: _Told, state: str) -> None:
    if arguments.json:
        print(json.dumps(told.facts(state)))
        return
    lines = [f"{told.unit.name}: {state}"]
    if told.user is not None:
        lines.append(f"  runs as {told.user}")
    lines += [f"  {path}: {each}" for path, each in told.files.items()]
    lines += [f"  {path}: made" for path in told.folders]
    lines += [f"  $ {each}" for each in told.commands]
    if state not in {"uninstalled", "was not installed"}:
        lines.append(f"  its log: {service.journal(told.unit.scope, told.unit.name)}")
    print("\n".join(words.printable(line) for line in lines))


# -- the service manager ----------------------------------------------------------------------


def _words(scope: Scope, *words: str) -> list[str]:
    return ["systemctl", *(["--user"] if scope is Scope.USER else []), *words]


def _reach(
    scope: Scope, without: str = "`assetd start` runs it in the background without one"
) -> int:
    """The version of the service manager, which answers.

    Args:
        scope: Whose.
        without: What to do where there is none.

    Raises:
        UsageError: There is none, or it does not answer; the text says what to do.
    """
    try:
        asked = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UsageError(f"there is no systemctl here ({error.strerror}): {without}") from error
    reached = subprocess.run(
        _words(scope, "show", "--property=Version"), capture_output=True, text=True, check=False
    )
    if reached.returncode == 0:
        return service.version(asked.stdout)
    why = " ".join(reached.stderr.split()).rstrip(".")
    if scope is Scope.SYSTEM:
        raise UsageError(f"systemd does not answer ({why}): {without}")
    name = words.user(os.geteuid())
    raise UsageError(
        f"your own systemd does not answer ({why}): log in as {name} itself, not through su or "
        f"sudo; where nobody logs in, `loginctl enable-linger {name}` as root starts it; "
        "`sudo assetd service install --system` installs a service of the machine; " + without
    )


def _systemctl(told: _Told, *words: str, check: bool = True) -> None:
    """Run a command, and note it for the people who asked for its effect."""
    scope, name = told.unit.scope, told.unit.name
    line = _words(scope, *words)
    told.commands.append(shlex.join(line))
    began = time.time()
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True)  # noqa: PLW1510 - judged below
    if check and done.returncode != 0:
        said = _said(scope, name, began) or [" ".join(done.stderr.split())]
        more = (
            f"`{service.journal(scope, name)} -e` has its log; "
            "`assetd service uninstall` takes the service away again"
        )
        raise AssetdError("\n".join([f"`{shlex.join(line)}` failed:", *said, more]))


def _said(scope: Scope, name: str, since: float) -> list[str]:
    """What was wrong with a unit since then, as far as we may read the journal."""
    if scope is Scope.SYSTEM:  # what a process says with its last breath is still on its way
        subprocess.run(["journalctl", "--sync"], capture_output=True, check=False)
    asked = subprocess.run(
        [*shlex.split(service.journal(scope, name)), f"--since=@{int(since)}", "--priority=warning",
         "--output=cat", "--no-pager", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    # That it failed is known.
    known = (f"{name}: Failed with result", "Failed to start ")
    lines = [line for line in asked.stdout.splitlines() if not line.startswith(known)]
    return [line.removeprefix("assetd: ") for line in lines][-LINES_SHOWN:]


def steer(scope: Scope, name: str, verb: str) -> None:
    """Have the service manager start, stop or restart a unit; people see the command.

    Raises:
        AssetdError: It does not; the text says why.
    """
    line = _words(scope, verb, name)
    helpless = scope is Scope.SYSTEM and os.geteuid() != 0  # but for a password
    if not helpless:
        _reach(scope, "`assetd run` runs it in the foreground")
    print(f"assetd is a service here: {shlex.join(line)}", file=sys.stderr)
    if verb == "start":  # which is refused to a unit that has failed too often
        forget = _words(scope, "reset-failed", "--no-ask-password", name)
        subprocess.run(forget, capture_output=True, check=False)
    began = time.time()
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(line, check=False).returncode == 0:  # it may ask for a password
            return
    if helpless:
        raise AssetdError(f"it is a service of the machine: `sudo {shlex.join(line)}` may do it")
    more = f"`{service.journal(scope, name)} -e` has its log"
    raise AssetdError("\n".join([*_said(scope, name, began), more]))


def is_up(unit: Unit) -> bool:
    """Whether the unit runs, or is about to."""
    return _show(unit, "ActiveState") in {"active", "activating", "reloading"}


def _show(unit: Unit, name: str) -> str:
    """One property of the unit, as the service manager has it; empty if it does not answer."""
    line = _words(unit.scope, "show", "--property", name, "--value", unit.name)
    with contextlib.suppress(OSError):
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _holder(arguments: argparse.Namespace) -> int | None:
    """The process of the daemon that runs for the project, however it was started."""
    with (
        contextlib.suppress(NotRunningError),
        contextlib.closing(command.connect(arguments)) as door,
    ):
        return int(door.ask("status")["pid"])
    return None


def _lingers() -> bool:
    return os.path.exists(f"/var/lib/systemd/linger/{words.user(os.geteuid())}")


# -- the machine ------------------------------------------------------------------------------


def _environment(scope: Scope) -> tuple[tuple[str, str], ...]:
    """What the service must have from here to find the same tools."""
    # A service manager's own PATH has neither nvm's Node nor ~/.local/bin.
    path = [each for each in os.environ.get("PATH", "").split(":") if os.path.isabs(each)]
    data = SYSTEM_DATA if scope is Scope.SYSTEM else os.environ.get("XDG_DATA_HOME", "")
    found = (("PATH", ":".join(dict.fromkeys(path))), ("XDG_DATA_HOME", data))
    return tuple((name, value) for name, value in found if value)


def _python_folders() -> tuple[str, ...]:
    """Where Python and assetd are."""
    return tuple(dict.fromkeys((sys.prefix, sys.base_prefix, os.path.dirname(__file__))))


def _user(asked: str | None, project: str) -> str:
    """Who a service of the system runs as."""
    if asked is not None:
        return asked
    owner = os.stat(project).st_uid
    return OWN_USER if owner == 0 else words.user(owner)


def _is_made(name: str) -> bool:
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        return True
    return False


def _is_user(name: str, *, may_create: bool) -> bool:
    """Whether there is such a user; if not, it is to be made.

    Raises:
        UsageError: There is none, and it is not for us to make it.
    """
    if _is_made(name):
        return True
    if name.startswith("#"):
        raise UsageError(
            f"the project belongs to user {name[1:]}, who has no name on this machine: "
            "choose who the service runs as with --run-as"
        )
    if not may_create or name != OWN_USER:
        raise UsageError(f"there is no user {name!r}: `useradd --system {name}` makes one")
    return False


def _make_user(told: _Told, name: str) -> None:
    done = _run_useradd(name)
    if done.returncode != 0:
        raise AssetdError(f"`{_useradd(name)}` failed: {' '.join(done.stderr.split())}")
    told.commands.append(_useradd(name))


def _run_useradd(name: str) -> subprocess.CompletedProcess[str]:
    # After `su` without a dash /usr/sbin, where it is, is not in the PATH.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        return subprocess.run(
            shlex.split(_useradd(name)),
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise AssetdError(f"`{_useradd(name)}` failed: {error.strerror}") from error


def _useradd(name: str) -> str:
    return f"useradd --system --no-create-home --shell /usr/sbin/nologin {shlex.quote(name)}"


def check_as(name: str, file: str) -> None:
    """See whether assetd runs as user *name*, and takes the configuration *file*.

    As that user, as the service will: a Python in root's home is for root alone, so may the
    project be, and plugins of its owner are not to run as root.

    Args:
        name: Need not be there yet: then anybody has to be able to do it.
        file: Absolute.

    Raises:
        UsageError: It does not; the text says what to do.
    """
    try:
        entry = pwd.getpwnam(name)
        uid, gid, home = entry.pw_uid, entry.pw_gid, entry.pw_dir
        groups = os.getgrouplist(name, gid)
    except KeyError:
        uid, gid, home, groups = NOBODY, NOBODY, "/", []
    kept = {each: os.environ[each] for each in ("LANG", "LC_ALL") if each in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "assetd", "config", "--json", "--config", file],
            user=uid,
            group=gid,
            extra_groups=groups,
            cwd="/",
            env={**kept, "HOME": home, "USER": name, **dict(_environment(Scope.SYSTEM))},
            capture_output=True,
            text=True,
            check=False,
        )
        code, said = done.returncode, done.stderr.strip()
    except OSError as error:
        code, said = 1, str(error.strerror)
    lines = [line.removeprefix("assetd: ") for line in said.splitlines()]
    if code == command.MISCONFIGURED:
        raise UsageError("\n".join([f"{name}, who the service runs as, is refused:", *lines]))
    if code != command.OK:
        raise UsageError(
            f"{name}, who the service runs as, cannot run {sys.executable} -m assetd "
            f"({lines[-1] if lines else f'it ends with {code}'}): install assetd where everybody "
            "may read it, in a virtual environment below /opt, say; or choose another user with "
            "--run-as"
        )
    for line in lines:  # what deserves a warning
        command.say(line)


def _check_owner(folders: Sequence[str], name: str, *, creates: bool) -> None:
    """See whether the folders that the service writes to are its user's, as far as they exist.

    Raises:
        UsageError: They are not; the text says how to change that.
    """
    uid = None if creates else pwd.getpwnam(name).pw_uid
    foreign = {
        folder: owner
        for folder in folders
        if os.path.isdir(folder) and (owner := os.stat(folder).st_uid) != uid
    }
    if not foreign or uid == 0:
        return
    whose = " and ".join(
        f"{folder} belongs to {words.user(owner)}" for folder, owner in foreign.items()
    )
    give = f"chown -R {shlex.quote(name)} {shlex.join(foreign)}"
    raise UsageError(
        f"{whose}, and the service runs as {name}: "
        f"`{f'{_useradd(name)} && ' if creates else ''}{give}` hands over what is there, "
        "--run-as chooses another user"
    )


def _hand_over(told: _Told, folder: str, name: str | None) -> None:
    """See that a folder is there; a new one is the service's user's.

    Raises:
        UsageError: It cannot be made.
    """
    try:
        fresh = not os.path.isdir(folder)
        os.makedirs(folder, exist_ok=True)
        # By descriptor: whoever owns the project could put a link in its place meanwhile.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if fresh:
                told.folders.append(folder)
                if name is not None:
                    entry = pwd.getpwnam(name)
                    os.fchown(fd, entry.pw_uid, entry.pw_gid)
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
