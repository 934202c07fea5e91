"""What is wrong around a project, and what to do about it: limits, file systems, tools, clock.

Examines and changes nothing; each check gives findings, and none stops the others.  Knows the
machine and the project's folders; nothing of builds.
"""

import contextlib
import os
import re
import resource
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import metadata
from typing import Any, Final

from assetd import __version__, client, registry
from assetd import config as configs
from assetd import place as places
from assetd.config import Config
from assetd.errors import (
    AssetdError,
    ConfigError,
    CorruptRecordError,
    DeadlineError,
    NotRunningError,
    OutdatedRecordError,
    RecordError,
)
from assetd.model import Problem
from assetd.record import Reader
from assetd.registry import Project
from assetd.survey import Layout
from assetd.tree import TreeError, grow
from assetd.watch import walk
from assetd.words import count, duration, printable

SCHEMA: Final = 1
ANSWER_SECONDS: Final = 3.0
"""A daemon that has not answered by then hangs."""
TRIED_SOURCES: Final = 50
"""Of the sources that a processor without its tool may take, those that are looked at closely."""
FILE_NUMBER: Final = 1_400
"""Open files that a daemon wants: one for each client, and some to spare."""
FILE_NUMBER_LEAST: Final = 256
EVENTS_LEAST: Final = 16_384
"""Linux's own number; with fewer a `git checkout` is more than the kernel's queue holds."""
SPACE_LEAST: Final = 16 << 20
SPACE_WANTED: Final = 256 << 20
INODES_LEAST: Final = 100
INODES_WANTED: Final = 10_000
CLOCK_SECONDS: Final = 60.0
"""Two clocks that are this close agree."""
EPOCH_2020: Final = 1_577_836_800

NETWORK: Final = frozenset(
    {
        *("9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "prl_fs"),
        *("smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "fuse.glusterfs", "fuse.sshfs"),
        *("fuse.vmhgfs-fuse", "fuse.s3fs", "fuse.rclone"),
    }
)
"""File systems that others change behind this kernel's back."""


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Good to know."""
    WARNING = "warning"
    """It works, and not as well as it could."""
    PROBLEM = "problem"
    """Something must be done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found."""

    check: str
    level: Level
    message: str
    cure: str | None = None
    """What to do, a line each."""

    def facts(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {
            "check": self.check,
            "level": self.level.value,
            "message": self.message,
            "cure": self.cure,
        }


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings, and the numbers behind them."""

    findings: tuple[Finding, ...]
    numbers: Mapping[str, Any]

    @property
    def must_act(self) -> bool:
        """Whether anything must be done."""
        return any(finding.level is Level.PROBLEM for finding in self.findings)

    def facts(self) -> dict[str, Any]:
        """The examination as a JSON object."""
        found = [finding.facts() for finding in self.findings]
        return {"schema": SCHEMA, "findings": found, **self.numbers}


@dataclass(slots=True)
class Sources:
    """What a walk through the mounts has shown."""

    files: int = 0
    folders: set[str] = field(default_factory=set)
    """Absolute, to be watched."""
    future: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    not_followed: list[tuple[str, str]] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    """Folders that may not be read, and why."""
    toolless: dict[str, str] = field(default_factory=dict)
    """By processor whose tool is not there: a source that needs it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the kernel allows one user."""

    watches: int
    instances: int
    queued_events: int
    watches_key: str
    """The sysctl that says so."""
    instances_key: str


@dataclass(frozen=True, slots=True)
class Held:
    """What this user's processes hold, as far as /proc tells."""

    watches: int
    instances: int


@dataclass(frozen=True, slots=True)
class Daemon:
    """Who holds the project, and what it says."""

    pid: int
    listens: bool
    """False: it is a build, which nobody can ask."""
    status: Mapping[str, Any] | None
    trouble: str | None = None
    """Why there is no status."""


def examine(file: str) -> Examination:
    """Everything that there is to check of the project of the configuration *file*."""
    project, problems, warnings = _project(file)
    config = project.config
    sources = walk_sources(Layout(project), time.time())
    daemon = _daemon(config)
    limits, held = read_limits(), read_held()
    mounts = _read_text("/proc/self/mountinfo")
    record, needed = _record(config, sources)
    findings = (
        *_versions(),
        *_configuration(file, problems, warnings),
        *_processors(project, sources),
        *judge_daemon(daemon),
        *record,
        *judge_watches(config, needed, daemon, limits, held),
        *_file_systems(config, mounts),
        *_space(config),
        *_staging(config, mounts),
        *_permissions(config, sources),
        *_links(sources),
        *judge_clock(sources, time.time()),
        *_open_files(),
    )
    numbers = {
        "project": config.project,
        "out_dir": config.out_dir,
        "state_dir": config.state_dir,
        "files": sources.files,
        "watches": {
            "needed": needed,
            "held": held.watches,
            "allowed": limits.watches,
            "instances_held": held.instances,
            "instances_allowed": limits.instances,
            "queued_events": limits.queued_events,
        },
        "daemon": None
        if daemon is None
        else {"pid": daemon.pid, "answers": daemon.status is not None},
        "versions": versions(),
    }
    return Examination(findings, numbers)


# -- the project --------------------------------------------------------------------------


def _project(file: str) -> tuple[Project, tuple[Problem, ...], tuple[Problem, ...]]:
    """The project as far as it can be read; what is wrong with it; what deserves a warning."""
    try:
        project = registry.load(file)
    except ConfigError as error:
        problems = error.problems
    else:
        return project, (), project.warnings
    try:
        config, _ = configs.read(file)
    except ConfigError:
        # Not even the folders: what is said of them is said of the usual ones.
        config, _ = configs.resolve(configs.parse(b"", file), file)
    there = tuple(mount for mount in config.mounts if os.path.isdir(mount.folder))
    return (
        Project(replace(config, mounts=there), (), {mount.name: () for mount in there}),
        problems,
        (),
    )


def _configuration(
    file: str, problems: Sequence[Problem], warnings: Sequence[Problem]
) -> Iterator[Finding]:
    for problem in problems:
        what = "this line" if problem.line is not None else "the configuration"
        yield Finding("config", Level.PROBLEM, str(problem), f"mend {what}, and ask again")
    for warning in warnings:
        yield Finding("config", Level.WARNING, str(warning))
    if not problems and not warnings:
        yield Finding("config", Level.OK, f"{file} is sound")


def _processors(project: Project, sources: Sources) -> Iterator[Finding]:
    used = {o.processor.name for chosen in project.chosen.values() for o in chosen}
    missing = 0
    for opened in project.processors:
        name = opened.processor.name
        if name not in used or opened.available or opened.tool is None:
            continue
        missing += 1
        message = f"{name} needs {opened.tool.name}, which is not there"
        cure = opened.tool.cure
        if name in sources.toolless:
            message += f"; {sources.toolless[name]} cannot be built"
            yield Finding("tools", Level.PROBLEM, message, cure)
        else:
            yield Finding("tools", Level.NOTE, f"{message}; no source asks for it", cure)
    if used and not missing:
        yield Finding("tools", Level.OK, f"{count(len(used), 'processor')} with all their tools")


def versions() -> dict[str, str | None]:
    """What takes part, and its version; None for what is not there."""
    found: dict[str, str | None] = {
        "assetd": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    with contextlib.suppress(metadata.PackageNotFoundError):
        for wanted in metadata.requires("assetd") or ():
            name, _, marker = wanted.partition(";")
            short = re.match(r"[\w.-]+", name)
            if short is not None and "extra" not in marker:
                with contextlib.suppress(metadata.PackageNotFoundError):
                    found[short[0]] = metadata.version(short[0])
    found["node"] = _node()
    return found


def _node() -> str | None:
    for folder in (os.path.dirname(sys.executable), None):  # an extra brings one
        program = shutil.which("node", path=folder)
        if program is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [program, "--version"], capture_output=True, text=True, timeout=5.0, check=True
            )
            return done.stdout.strip().removeprefix("v")
    return None


def _versions() -> Iterator[Finding]:
    told = ", ".join(f"{name} {version}" for name, version in versions().items() if version)
    yield Finding("versions", Level.OK, told)


# -- sources ------------------------------------------------------------------------------


def walk_sources(layout: Layout, now: float) -> Sources:
    """What there is in the mounts, as a scan would find it."""
    found = Sources()
    late_ns = int((now + CLOCK_SECONDS) * 1e9)
    for mount in layout.mounts.values():
        toolless = (o.processor.name for o in layout.takers(mount.name) if not o.available)
        waiting = dict.fromkeys(toolless, TRIED_SOURCES)

        def skip(path: str, is_folder: bool, mount: configs.Mount = mount) -> bool:
            return layout.ignored(mount, path, is_folder=is_folder)

        def on_link(path: str, why: str, mount: configs.Mount = mount) -> None:
            link = os.path.join(mount.folder, path)
            kind = found.not_followed if os.path.islink(link) else found.closed
            kind.append((places.join(mount.place, path) if path else mount.place, why))

        for listing in walk(mount.folder, "", skip, found.folders.add, on_link):
            folder = os.path.join(mount.folder, listing.folder)
            for name, stamp in listing.files.items():
                found.files += 1
                path = f"{listing.folder}/{name}" if listing.folder else name
                if stamp.mtime_ns > late_ns:
                    found.future.append(places.join(mount.place, path))
                if not os.access(f"{folder}/{name}", os.R_OK):
                    found.unreadable.append(places.join(mount.place, path))
                if waiting:
                    _ask_toolless(layout, mount, path, waiting, found)
    return found


def _ask_toolless(
    layout: Layout, mount: configs.Mount, path: str, waiting: dict[str, int], found: Sources
) -> None:
    """Note whether a source goes through a processor whose tool is not there.

    Args:
        layout: The configuration.
        mount: Of the source.
        path: Of the source.
        waiting: How many more sources each of those processors is tried on, by name.
        found: Takes the note.
    """
    takers = layout.takers(mount.name)
    for opened in takers:
        name = opened.processor.name
        if not waiting.get(name):
            continue
        with contextlib.suppress(TreeError):
            if grow(path, (opened,)) is None:
                continue
            # It would take it; whether another one comes first, the whole tree tells.
            waiting[name] -= 1
            tree = grow(path, takers)
            if tree is not None and any(node.processor == name for node in tree.nodes):
                found.toolless.setdefault(name, places.join(mount.place, path))
                del waiting[name]


def _permissions(config: Config, sources: Sources) -> Iterator[Finding]:
    wrong = list(_wrong_permissions(config, sources))
    yield from wrong or [Finding("permissions", Level.OK, "everything can be read and written")]


def _wrong_permissions(config: Config, sources: Sources) -> Iterator[Finding]:
    check = "permissions"
    for folder in (config.out_dir, config.state_dir):
        there = _nearest(folder)
        if not os.access(there, os.W_OK | os.X_OK):
            yield Finding(
                check,
                Level.PROBLEM,
                f"{there} cannot be written",
                # Makes it if it is not there: what is above it is nobody's to give away.
                f"sudo install -d -o {os.geteuid()} {shlex.quote(folder)}",
            )
    with contextlib.suppress(OSError):
        found = os.stat(config.state_dir)
        if found.st_uid not in {os.geteuid(), 0} and os.geteuid() != 0:
            yield Finding(
                check,
                Level.PROBLEM,
                f"{config.state_dir} belongs to user {found.st_uid}, not to you",
                f"sudo chown -R {os.geteuid()} {shlex.quote(config.state_dir)}",
            )
        elif stat.S_IMODE(found.st_mode) & 0o077:
            yield Finding(
                check,
                Level.WARNING,
                f"others may look into {config.state_dir} ({stat.S_IMODE(found.st_mode):04o})",
                f"chmod 700 {shlex.quote(config.state_dir)}",
            )
    if sources.closed:
        place, why = sources.closed[0]
        number = count(len(sources.closed), "folder")
        yield Finding(
            check,
            Level.PROBLEM,
            f"{number} among the sources cannot be read: {place or 'the project'}: {why}",
            "let this user read them, or name them under `ignore`",
        )
    if sources.unreadable:
        number = count(len(sources.unreadable), "file")
        yield Finding(
            check,
            Level.PROBLEM,
            f"{number} among the sources cannot be read: {_first(sources.unreadable)}",
            "let this user read them, or name them under `ignore`",
        )


def _links(sources: Sources) -> Iterator[Finding]:
    if not sources.not_followed:
        yield Finding("links", Level.OK, "no link to a folder among the sources")
        return
    place, why = sources.not_followed[0]
    number = count(len(sources.not_followed), "link")
    yield Finding(
        "links",
        Level.NOTE,
        f"{number} not followed: {place}: {why}",
        "name the folder that it leads to under `mounts`, or the link under `ignore`",
    )


def judge_clock(sources: Sources, now: float) -> Iterator[Finding]:
    """Whether the clock fits the sources, and the century."""
    today = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    if now < EPOCH_2020:
        yield Finding("clock", Level.PROBLEM, f"it says {today}", "sudo timedatectl set-ntp true")
    if sources.future:
        number = count(len(sources.future), "file")
        yield Finding(
            "clock",
            Level.WARNING,
            f"{number} among the sources come from the future: {_first(sources.future)}; "
            "each is read again every time",
            "touch them, once the clock is right",
        )
    if now >= EPOCH_2020 and not sources.future:
        yield Finding("clock", Level.OK, f"it says {today}")


# -- the daemon and the record ------------------------------------------------------------


def _daemon(config: Config) -> Daemon | None:
    holder = client.holder(config.state_dir)
    if holder is None:
        return None
    if holder.socket is None:
        return Daemon(holder.pid, listens=False, status=None)
    try:
        path = holder.socket
        with contextlib.closing(client.Connection(path)) as connection:
            deadline = time.monotonic() + ANSWER_SECONDS
            status = connection.ask("status", deadline=deadline)
    except NotRunningError:
        told = f"nobody listens at {holder.socket}"
        return Daemon(holder.pid, listens=True, status=None, trouble=told)
    except DeadlineError:
        told = f"it has not answered for {duration(ANSWER_SECONDS)}"
        return Daemon(holder.pid, listens=True, status=None, trouble=told)
    except (AssetdError, OSError, ValueError) as error:
        return Daemon(holder.pid, listens=True, status=None, trouble=str(error))
    return Daemon(holder.pid, listens=True, status=status)


def judge_daemon(daemon: Daemon | None) -> Iterator[Finding]:
    """Whether whoever holds the project is well."""
    if daemon is None:
        yield Finding("daemon", Level.OK, "none is running")
        return
    who = f"pid {daemon.pid}"
    if not daemon.listens:
        yield Finding("daemon", Level.OK, f"a build is under way ({who})")
    elif daemon.status is None:
        yield Finding(
            "daemon",
            Level.PROBLEM,
            f"{who} holds the project and does not answer: {daemon.trouble}",
            f"if it stays so: kill -9 {daemon.pid} && assetd start",
        )
    elif daemon.status.get("version") != __version__:
        yield Finding(
            "daemon",
            Level.WARNING,
            f"{who} is assetd {daemon.status.get('version')}, and this is {__version__}",
            "assetd stop && assetd start",
        )
    elif daemon.status.get("trouble"):
        yield Finding(
            "daemon",
            Level.PROBLEM,
            f"{who} cannot record anything: {daemon.status['trouble']}",
            "it goes on by itself once the disk takes what it writes",
        )
    else:
        yield Finding("daemon", Level.OK, f"{who} is {daemon.status.get('state')}")


def _record(config: Config, sources: Sources) -> tuple[list[Finding], int]:
    """What there is to say of the record, and how many folders are to be watched."""
    folders = set(sources.folders)
    folders |= {os.path.dirname(path) for path in (config.file, *config.plugins)}
    folders |= {os.path.dirname(mount.folder) for mount in config.mounts}
    folders |= {config.out_dir, os.path.dirname(config.out_dir), config.state_dir}
    path = config.record_path
    findings: list[Finding] = []
    try:
        with contextlib.closing(Reader(path)) as reader:
            reader.check()
            for place in reader.folders_of_files():
                folder = places.path(place, config.project)
                while folder not in folders and places.is_below(folder, config.project):
                    folders.add(folder)
                    folder = os.path.dirname(folder)
                folders.add(folder)
            for output in reader.outputs():
                folders.add(os.path.dirname(os.path.join(config.out_dir, output.path)))
            findings.append(_sound(reader))
    except FileNotFoundError:
        findings.append(Finding("record", Level.OK, "nothing has been built here yet"))
    except OutdatedRecordError as error:
        findings.append(Finding("record", Level.OK, str(error)))
    except CorruptRecordError as error:
        findings.append(
            Finding(
                "record",
                Level.PROBLEM,
                f"it is damaged: {error}",
                "assetd build  # sets it aside and begins a new one; outputs that are right stay",
            )
        )
    except RecordError as error:
        findings.append(Finding("record", Level.PROBLEM, str(error)))
    return findings, len(folders)


def _sound(reader: Reader) -> Finding:
    last = next(iter(reader.last_batches(1)), None)
    ended = None if last is None else last.finished_at
    if ended is not None and ended > time.time() + CLOCK_SECONDS:
        ahead = duration(ended - time.time())
        return Finding(
            "record",
            Level.WARNING,
            f"its latest batch ended {ahead} from now: the clock has been set back",
            "sudo timedatectl set-ntp true  # if the clock is wrong now",
        )
    outputs = count(reader.count_outputs(), "output")
    return Finding("record", Level.OK, f"it is sound, and knows of {outputs}")


# -- limits -------------------------------------------------------------------------------


def read_limits() -> Limits:
    """What the kernel allows this user, here and in its user namespace."""
    watches, watches_key = _lowest("watches")
    instances, instances_key = _lowest("instances")
    return Limits(
        watches,
        instances,
        _number("/proc/sys/fs/inotify/max_queued_events"),
        watches_key,
        instances_key,
    )


def _lowest(what: str) -> tuple[int, str]:
    keys = (f"fs.inotify.max_user_{what}", f"user.max_inotify_{what}")
    return min((_number("/proc/sys/" + key.replace(".", "/")), key) for key in keys)


def _number(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(_read_text(path))
    return sys.maxsize  # no such limit here


def _read_text(path: str) -> str:
    with (
        contextlib.suppress(OSError),
        open(path, encoding="utf-8", errors="surrogateescape") as file,
    ):
        return file.read()
    return ""


def read_held() -> Held:
    """The inotify instances and watches of this user's processes, as far as /proc tells."""
    watches = instances = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                continue
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:inotify":
                        instances += 1
                        watches += _read_text(f"/proc/{pid}/fdinfo/{fd}").count("inotify wd:")
    return Held(watches, instances)


def judge_watches(
    config: Config, needed: int, daemon: Daemon | None, limits: Limits, held: Held
) -> Iterator[Finding]:
    """Whether the kernel lets every folder be watched."""
    watch = {} if daemon is None or daemon.status is None else daemon.status["watch"]
    ours = watch.get("directories", 0)
    if config.watch.backend == "polling":
        yield Finding(
            "watches", Level.OK, f"none: {duration(config.watch.interval_seconds)} polling"
        )
        return
    told = f"{needed:,} needed, {held.watches:,} held, {limits.watches:,} allowed"
    missing = needed - ours + held.watches > limits.watches
    if missing or watch.get("unwatched"):
        cure = _sysctl(limits.watches_key, max(524_288, _power_of_two(2 * (needed + held.watches))))
        more = f"; {watch['unwatched']:,} are not watched now" if watch.get("unwatched") else ""
        cure += "\nor look every second instead, in assetd.yml: watch: {backend: polling}"
        yield Finding("watches", Level.PROBLEM, told + more, cure)
    else:
        yield Finding("watches", Level.OK, told)
    instances = f"{held.instances:,} held, {limits.instances:,} allowed"
    if held.instances + (not ours) > limits.instances:
        cure = _sysctl(limits.instances_key, max(512, _power_of_two(2 * held.instances)))
        yield Finding("watchers", Level.PROBLEM, f"inotify instances: {instances}", cure)
    else:
        yield Finding("watchers", Level.OK, f"inotify instances: {instances}")
    if limits.queued_events < EVENTS_LEAST:
        yield Finding(
            "events",
            Level.WARNING,
            f"{limits.queued_events:,} may be queued: a checkout of many files is more, "
            "and everything is scanned then",
            _sysctl("fs.inotify.max_queued_events", EVENTS_LEAST),
        )
    else:
        yield Finding("events", Level.OK, f"{limits.queued_events:,} may be queued")


def _sysctl(key: str, value: int) -> str:
    return (
        f"sudo sysctl {key}={value}\n"
        f"echo {key}={value} | sudo tee /etc/sysctl.d/60-assetd.conf  # to keep it"
    )


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def _open_files() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= FILE_NUMBER:
        told = "any number" if hard == resource.RLIM_INFINITY else f"{hard:,}"
        yield Finding("open files", Level.OK, f"{told} allowed")
        return
    level = Level.PROBLEM if hard < FILE_NUMBER_LEAST else Level.WARNING
    yield Finding(
        "open files",
        level,
        f"{hard:,} allowed, {FILE_NUMBER:,} wanted for as many clients as can be served",
        f"ulimit -Hn {FILE_NUMBER}, or LimitNOFILE={FILE_NUMBER} in the unit",
    )


# -- disks --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a path lies on."""

    kind: str
    mount: str
    """The line's number in mountinfo: between two of them a rename does not reach."""

    @property
    def is_network(self) -> bool:
        """Whether others may change it without this kernel's knowing."""
        return self.kind in NETWORK


def file_system(path: str, mountinfo: str) -> FileSystem:
    """What the real *path* lies on, by the text of /proc/self/mountinfo."""
    found, length = FileSystem("unknown", ""), -1
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if "-" not in fields or len(fields) < 7:
            continue
        at = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        if len(at) >= length and (path == at or path.startswith(at.rstrip("/") + "/")):
            # Of two that are mounted at one place, the later one is on top.
            found, length = FileSystem(fields[fields.index("-") + 1], fields[0]), len(at)
    return found


def _file_systems(config: Config, mountinfo: str) -> Iterator[Finding]:
    folders = {"project": config.project, "out_dir": config.out_dir, "state_dir": config.state_dir}
    kinds = {key: file_system(_nearest(path), mountinfo) for key, path in folders.items()}
    sources = {mount.name: file_system(mount.folder, mountinfo) for mount in config.mounts} or {
        "project": kinds["project"]
    }
    yield from judge_file_systems(config, kinds, sources)


def judge_file_systems(
    config: Config, kinds: Mapping[str, FileSystem], sources: Mapping[str, FileSystem]
) -> Iterator[Finding]:
    """What the file systems are good for.

    Args:
        config: Tells how changes are noticed.
        kinds: Of `project`, `out_dir` and `state_dir`.
        sources: Of each mount.
    """
    check = "file systems"
    wrong: list[Finding] = []
    for name, each in sources.items():
        if config.watch.backend == "polling":
            break
        if each.is_network:
            wrong.append(
                Finding(
                    check,
                    Level.WARNING,
                    f"{name} is on {each.kind}: what other machines write there is not noticed",
                    "in assetd.yml: watch: {backend: polling}",
                )
            )
        elif each.kind == "overlay":
            wrong.append(
                Finding(
                    check,
                    Level.NOTE,
                    f"{name} is on overlay: what is written to the layers below is not noticed",
                    "in a container, bind-mount the project; "
                    "else in assetd.yml: watch: {backend: polling}",
                )
            )
    state = kinds["state_dir"]
    if state.is_network:
        wrong.append(
            Finding(
                check,
                Level.PROBLEM,
                f"state_dir is on {state.kind}: the record (SQLite in WAL mode) needs a local disk",
                "in assetd.yml: state_dir: a folder on a disk of this machine",
            )
        )
    elif state.kind in {"tmpfs", "ramfs"}:
        wrong.append(
            Finding(
                check,
                Level.NOTE,
                f"state_dir is on {state.kind}: everything is built anew after a reboot",
            )
        )
    if wrong:
        yield from wrong
    else:
        told = ", ".join(f"{key} {each.kind}" for key, each in kinds.items())
        yield Finding(check, Level.OK, told)


def _staging(config: Config, mountinfo: str) -> Iterator[Finding]:
    out, state = (
        (file_system(there, mountinfo).mount, os.stat(there).st_dev)
        for there in map(_nearest, (config.out_dir, config.state_dir))
    )
    if out == state:
        yield Finding("staging", Level.OK, "on the file system of the output folder")
    else:
        yield Finding(
            "staging",
            Level.NOTE,
            f"state_dir and {config.out_dir} are on two file systems: "
            "outputs are staged in the output folder, in .assetd-staging",
        )


def _space(config: Config) -> Iterator[Finding]:
    seen: set[int] = set()
    fine: list[str] = []
    wrong = False
    for key, folder in (("out_dir", config.out_dir), ("state_dir", config.state_dir)):
        there = _nearest(folder)
        device = os.stat(there).st_dev
        if device in seen:
            continue
        seen.add(device)
        found = os.statvfs(there)
        free = found.f_bavail * found.f_frsize
        inodes = found.f_favail if found.f_files else None  # some have no fixed number
        finding = judge_space(key, there, free, inodes)
        if finding is None:
            left = "" if inodes is None else f" and {count(inodes, 'inode')}"
            fine.append(f"{key} has {_bytes(free)}{left}")
        else:
            wrong = True
            yield finding
    if not wrong:
        yield Finding("space", Level.OK, "; ".join(fine))


def judge_space(key: str, folder: str, free: int, inodes: int | None) -> Finding | None:
    """What is to be said of the space that is left; None if it is enough.

    Args:
        key: What the folder is to us.
        folder: Where it is.
        free: Bytes.
        inodes: Files that may still be made; None where there is no such limit.
    """
    scarce = free < SPACE_WANTED or (inodes is not None and inodes < INODES_WANTED)
    if not scarce:
        return None
    out = free < SPACE_LEAST or (inodes is not None and inodes < INODES_LEAST)
    left = "" if inodes is None else f", {count(inodes, 'inode')}"
    return Finding(
        "space",
        Level.PROBLEM if out else Level.WARNING,
        f"{key} ({folder}) has {_bytes(free)}{left} left",
        "make room there, or lower `store` in assetd.yml",
    )


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _nearest(path: str) -> str:
    """*path*, or the nearest folder above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 1:,} more" if len(listed) > 1 else ""
    return listed[0] + more


# -- for people ---------------------------------------------------------------------------

_STYLES: Final = {Level.OK: "32", Level.NOTE: "36", Level.WARNING: "33", Level.PROBLEM: "31"}


def lines(found: Examination, *, color: bool) -> Iterator[str]:
    """The findings, a line each, with their cures below them."""
    width = max(len(level.value) for level in Level)
    names = max(len(finding.check) for finding in found.findings)
    for finding in found.findings:
        level = finding.level.value.ljust(width)
        if color:
            level = f"\x1b[{_STYLES[finding.level]}m{level}\x1b[0m"
        yield f"{level}  {finding.check:{names}}  {printable(finding.message)}"
        for cure in (finding.cure or "").splitlines():
            yield f"{'':{width}}  {'':{names}}  → {printable(cure)}"
