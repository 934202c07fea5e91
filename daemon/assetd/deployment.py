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
from dataclasses import dataclass, field
from typing import Any, Final

from assetd import command, service, words
from assetd.errors import AlreadyRunningError, AssetdError, NotRunningError, UsageError
from assetd.service import Scope, Unit, Written

SCHEMA: Final = 1
OWN_USER: Final = "assetd"
"""Who a service of the system runs as, where the project belongs to root."""
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
    config = command.load(arguments).config
    unit = service.unit(scope, config.project, os.environ)
    told = _Told(unit)
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
    if made_for is not None:
        _make_user(told, made_for, may_create=arguments.run_as is None)
        _check_user_can_run(made_for)
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
        return command.OK
    _reach(scope)
    # Of a unit that was never loaded this fails, and there is nothing to stop.
    _systemctl(told, "disable", "--now", unit.name, check=False)
    told.files = service.remove(unit)
    _systemctl(told, "daemon-reload")
    if _show(unit, "ActiveState") == "failed":
        _systemctl(told, "reset-failed", unit.name, check=False)
    _print(arguments, told, "uninstalled")
    return command.OK


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
        flag = "--user " if told.unit.scope is Scope.USER else ""
        name = shlex.quote(told.unit.name)
        lines.append(f"  its log: journalctl {flag}-u {name}")
    print("\n".join(words.printable(line) for line in lines))


# -- the service manager ----------------------------------------------------------------------


def _words(scope: Scope, *words: str) -> list[str]:
    return ["systemctl", *(["--user"] if scope is Scope.USER else []), *words]


def _reach(scope: Scope) -> int:
    """The version of the service manager, which answers.

    Raises:
        UsageError: There is none, or it does not answer; the text says what to do.
    """
    without = "`assetd start` runs it in the background without a service manager"
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
    name = _name(os.geteuid())
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
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True)  # noqa: PLW1510 - judged below
    if check and done.returncode != 0:
        flag = "--user " if scope is Scope.USER else ""
        raise AssetdError(
            f"`{shlex.join(line)}` failed: {' '.join(done.stderr.split())}\n"
            f"what assetd said: `journalctl {flag}-e -u {shlex.quote(name)}`; "
            "`assetd service uninstall` takes the service away again"
        )


def _show(unit: Unit, name: str) -> str:
    """One property of the unit, as the service manager has it."""
    shown = subprocess.run(
        _words(unit.scope, "show", "--property", name, "--value", unit.name),
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout.strip()


def _holder(arguments: argparse.Namespace) -> int | None:
    """The process of the daemon that runs for the project, however it was started."""
    with (
        contextlib.suppress(NotRunningError),
        contextlib.closing(command.connect(arguments)) as door,
    ):
        return int(door.ask("status")["pid"])
    return None


def _lingers() -> bool:
    return os.path.exists(f"/var/lib/systemd/linger/{_name(os.geteuid())}")


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


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _user(asked: str | None, project: str) -> str:
    """Who a service of the system runs as."""
    if asked is not None:
        return asked
    owner = os.stat(project).st_uid
    return OWN_USER if owner == 0 else _name(owner)


def _make_user(told: _Told, name: str, *, may_create: bool) -> None:
    """See that the user is there."""
    told.user = name
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        return
    if not may_create or name != OWN_USER:
        raise UsageError(f"there is no user {name!r}: `useradd --system {name}` makes one")
    line = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssetdError(f"`{shlex.join(line)}` failed: {' '.join(done.stderr.split())}")
    told.commands.append(shlex.join(line))


def _check_user_can_run(name: str) -> None:
    """Run assetd as the service will: a Python in root's home is for root alone.

    Raises:
        UsageError: It cannot; the text says where to install assetd.
    """
    entry = pwd.getpwnam(name)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "assetd", "--version"],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        why = done.stderr.strip().rpartition("\n")[2] if done.returncode else None
    except OSError as error:
        why = error.strerror
    if why is not None:
        raise UsageError(
            f"{name}, who the service runs as, cannot run {sys.executable} -m assetd ({why}): "
            "install assetd where everybody may read it, in a virtual environment below /opt, "
            "say; or choose another user with --run-as"
        )


def _hand_over(told: _Told, folder: str, name: str | None) -> None:
    """See that a folder is there, and that the service's user may write to it.

    Raises:
        UsageError: It belongs to somebody else; the text says how to change that.
    """
    uid = os.geteuid() if name is None else pwd.getpwnam(name).pw_uid
    try:
        fresh = not os.path.isdir(folder)
        os.makedirs(folder, exist_ok=True)
        # By descriptor: whoever owns the project could put a link in its place meanwhile.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if fresh:
                told.folders.append(folder)
                if uid != os.geteuid():
                    os.fchown(fd, uid, -1)
            owner = os.fstat(fd).st_uid
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
    if name is not None and uid not in {owner, 0}:
        raise UsageError(
            f"{folder} belongs to {_name(owner)}, and the service runs as {name}: "
            f"`chown -R {name} {shlex.quote(folder)}`, or choose another user with --run-as"
        )
