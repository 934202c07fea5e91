"""Under a real system manager: a service of the machine, from its installation to its end.

systemd is booted as the init of a machine that is thrown away.  Its root is an overlay: what is
below it is this machine's, and whatever is written goes to memory.  It has namespaces of its own
for mounts, processes, control groups, hosts, network and IPC, devices, `/run` and temporary
folders of its own, and none of the privileges that reach beyond them.

`ASSETD_TEST_ROOT` names another system's root to put below it, as debootstrap makes one: so a
newer systemd can be tried here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests import groups, plugins

from assetd import confinement, service
from assetd.service import Scope
from assetd.testing import Site, wait_for

ROOT: Final = Path(__file__).resolve().parents[1]
LOWER: Final = os.environ.get("ASSETD_TEST_ROOT", "/")
MANAGER: Final = "/usr/lib/systemd/systemd"
JOURNAL: Final = "/usr/lib/systemd/systemd-journald"
TOOLS: Final = (
    *("bash", "unshare", "nsenter", "setpriv", "mount", "umount", "pivot_root", "mknod"),
    *("hostname", "useradd", "runuser", "systemctl", "journalctl", MANAGER, JOURNAL),
)
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MACHINE: Final = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$FOLDER"
cd "$FOLDER"
mkdir upper work root
mount -t overlay -o "lowerdir=$LOWER,upperdir=$PWD/upper,workdir=$PWD/work" overlay root
cd root

# What is of a machine's own, and must not be this one's.
for each in dev etc/systemd/system opt run tmp var/tmp; do
    mkdir -p "$each"
    mount -t tmpfs -o mode=755 tmpfs "$each"
done
chmod 1777 tmp var/tmp
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup

# assetd as docs/systemd.md has it: below /opt, for everybody to read.
mkdir -p opt/assetd/packages ".$PYTHON_HOME"
cp -r "$TREE/daemon" "$TREE/processors" opt/assetd
mount --bind "$PACKAGES" opt/assetd/packages
mount --bind "$PYTHON_HOME" ".$PYTHON_HOME"
mount -o remount,bind,ro opt/assetd/packages
mount -o remount,bind,ro ".$PYTHON_HOME"
above="$PYTHON_HOME"
while [ "$above" != / ]; do
    above="$(dirname "$above")"
    chmod a+x ".$above"
done

mkdir run/old
pivot_root . run/old
umount -l /run/old
cd /
"$PYTHON_HOME/bin/$PYTHON" -m compileall -q /opt/assetd/daemon /opt/assetd/processors
"$PYTHON_HOME/bin/$PYTHON" -m venv --without-pip /opt/assetd/venv
printf '%s\n' /opt/assetd/daemon /opt/assetd/processors /opt/assetd/packages \
    > "/opt/assetd/venv/lib/$PYTHON/site-packages/assetd.pth"
cd /opt/assetd/venv/bin
printf '#!/bin/sh\nexec /opt/assetd/venv/bin/python -P -m assetd "$@"\n' > assetd
chmod +x assetd

# As little as boots and shuts down again: nothing that looks after the machine.
mkdir /opt/units
cd /opt/units
for each in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket \
        local-fs.target local-fs-pre.target shutdown.target umount.target final.target \
        reboot.target systemd-reboot.service; do
    cp "/usr/lib/systemd/system/$each" .
done
printf '[Unit]\nWants=systemd-journald.service\nAfter=systemd-journald.service\n' > sysinit.target
printf '[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n' > basic.target
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' > multi-user.target
ln -s multi-user.target default.target
cd /

# What the manager asks to be started again after is a reboot.
while true; do
    unshare --fork --pid --mount --cgroup --ipc --uts --net --kill-child bash -c "$BOOT" || true
done
"""
"""Makes the machine, and switches it on."""

BOOT: Final = r"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname throwaway
export container=assetd-test SYSTEMD_UNIT_PATH=/etc/systemd/system:/opt/units
exec setpriv --bounding-set "$WITHOUT" "$MANAGER" --system --log-target=console --show-status=no
"""

WITHOUT: Final = ",".join(
    f"-{each}"
    for each in (
        *("audit_control", "audit_read", "audit_write", "block_suspend", "bpf", "mac_admin"),
        *("mac_override", "mknod", "perfmon", "sys_boot", "sys_module", "sys_rawio", "sys_time"),
        *("syslog", "wake_alarm"),
    )
)
"""Privileges that no namespace contains."""

UNSHARE: Final = """
echo 0 > "$GROUP/cgroup.procs"  # before it unshares: this group is the root of all that it sees
# Nor does it outlive us.
exec setpriv --pdeathsig KILL \\
    unshare --fork --pid --mount --mount-proc --cgroup --ipc --uts --net --kill-child \\
    bash -c "$MACHINE"
"""

TRIAL: Final = """
set -e
mount -t tmpfs tmpfs "$0"
cd "$0"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" overlay root
mknod root/null c 1 3
mount -t cgroup2 cgroup2 /sys/fs/cgroup
"""
"""Whether such a machine can be made here."""


class Machine:
    """A machine of our own, switched on."""

    def __init__(self, folder: Path) -> None:
        self._group = groups.made("assetd-machine")
        self._log = folder / "console.log"
        (folder / "root").mkdir()
        self._pid = 0
        python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", UNSHARE],
                env={
                    "PATH": PATH,
                    "BOOT": BOOT,
                    "FOLDER": str(folder / "root"),
                    "GROUP": str(self._group),
                    "LOWER": LOWER,
                    "MACHINE": MACHINE,
                    "MANAGER": MANAGER,
                    "PACKAGES": sysconfig.get_path("purelib"),
                    "PYTHON": python,
                    "PYTHON_HOME": sys.base_prefix,
                    "TREE": str(ROOT),
                    "WITHOUT": WITHOUT,
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait_until_up()
        except BaseException:
            self.end()
            raise

    def wait_until_up(self) -> None:
        """Wait until it has booted, for the first time or again."""
        before = self._pid

        def find() -> int:
            found = self._find()
            return 0 if found == before else found

        def running() -> bool:
            asked = self.run("systemctl", "is-system-running").stdout.strip()
            return asked in {"running", "degraded"}

        try:
            self._pid = wait_for(find, "the system manager to start", 20.0)
            self._first = self._children(self._process.pid)[0]
            wait_for(running, "the machine to be up", 20.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log.read_text()}") from None

    def _find(self) -> int:
        """The manager's process, the last in the line of our children; 0 if it is not there."""
        if self._process.poll() is not None:
            raise AssertionError(f"unshare ended with {self._process.returncode}")
        pid = self._process.pid
        while True:
            try:
                children = self._children(pid)
                if os.readlink(f"/proc/{pid}/exe").endswith("/systemd/systemd"):
                    return pid
            except OSError:  # it came or went meanwhile
                return 0
            if not children:
                return 0
            pid = children[0]

    def _children(self, pid: int) -> list[int]:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(word) for word in words]

    def path(self, inside: str) -> Path:
        """A path of the machine as we reach it, also while it boots again."""
        return Path(f"/proc/{self._first}/root{inside}")

    def words(self, *words: str) -> list[str]:
        """A command line that runs a command inside, as root."""
        enter = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--cgroup", "--ipc"]
        return [*enter, "--uts", "--net", "--", "env", "-i", f"PATH=/opt/assetd/venv/bin:{PATH}",
                "HOME=/root", "LANG=C.UTF-8", "NO_COLOR=1", *words]  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        return subprocess.run(
            self.words(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60.0,
        )

    def end(self) -> None:
        """Switch it off: the first process takes the others along."""
        self._process.kill()
        self._process.wait()
        groups.removed(self._group)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("a machine is booted by root only")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not here (Debian: apt install systemd util-linux): {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("machine")
    trial = subprocess.run(
        ["unshare", "--fork", "--pid", "--mount", "--cgroup", "--ipc", "--uts", "--net", "sh",
         "-c", TRIAL, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if trial.returncode != 0:
        pytest.skip(f"no machine can be made here: {trial.stderr.strip()}")
    machine = Machine(folder)
    yield machine
    machine.end()


class Service:
    """A site of root's in `/srv`, and its unit."""

    def __init__(self, machine: Machine, name: str, more: str = "") -> None:
        self.machine = machine
        self.folder = f"/srv/{name}"
        machine.path(self.folder).mkdir()
        self.site = Site(machine.path(self.folder), f"mounts: [assets]\nworkers: 1\n{more}")
        self.unit = service.unit(Scope.SYSTEM, self.folder, {})
        self.name = self.unit.name

    def assetd(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of assetd's as root."""
        return self.machine.run("assetd", *words, "-C", self.folder)

    def status(self) -> dict[str, Any]:
        """What `assetd status --json` prints."""
        told: dict[str, Any] = json.loads(self.assetd("status", "--json").stdout)
        return told

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `assetd service install`, which does it."""
        done = self.assetd("service", "install", *words)
        assert done.returncode == 0, done.stderr
        return done

    def override(self, settings: str) -> None:
        """Write what `systemctl edit` would: ours must not get in its way."""
        path = self.machine.path(f"/etc/systemd/system/{self.name}.d/override.conf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Service]\n{settings}")

    def systemctl(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `systemctl VERB … UNIT`."""
        return self.machine.run("systemctl", verb, *words, self.name)

    def show(self, name: str) -> str:
        """A property, as the manager has it."""
        return self.systemctl("show", "--property", name, "--value").stdout.strip()

    def wait(self, name: str, value: str, *, part: bool = False) -> None:
        """Wait until a property has a value, or holds it."""

        def has() -> bool:
            time.sleep(0.1)  # to look costs a process
            shown = self.show(name)
            return value in shown if part else value == shown

        try:
            wait_for(has, f"{name} to be {value}")
        except AssertionError as error:
            told = self.systemctl("status", "--lines=50", "--no-pager").stdout
            raise AssertionError(f"{error}\n{told}") from None

    def said(self) -> list[tuple[int, str]]:
        """Each line of its log in the journal: the priority and the text."""
        self.machine.run("journalctl", "--sync")
        done = self.machine.run("journalctl", "--output=json", f"--identifier={self.name[:-8]}")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return [(int(row["PRIORITY"]), row["MESSAGE"]) for row in rows]


def installed(machine: Machine) -> dict[str, str]:
    """Every file and link of the units that were added to the machine."""
    base = machine.path("/etc/systemd/system")
    return {
        str(path.relative_to(base)): str(path.readlink()) if path.is_symlink() else ""
        for path in base.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def test_a_service_of_the_machine_from_its_installation_to_its_end(machine: Machine) -> None:
    """It counts as started when all is built, and the next boot starts it again.

    Root's site gets a user of its own; what is left at the end are the outputs, until `clean`.
    """
    before = installed(machine)
    has_user = "\nassetd:" in machine.run("cat", "/etc/passwd").stdout
    unit = Service(machine, "site", "plugins: [held.py]\n")
    site = unit.site
    site.write("held.py", plugins.HELD)
    site.write("assets/a.held", "a")
    installing = subprocess.Popen(
        machine.words("assetd", "service", "install", "-C", unit.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with installing:
        unit.wait("StatusText", "Building", part=True)
        assert unit.show("ActiveState") == "activating"
        site.write("release")
        told, _ = installing.communicate(timeout=30.0)
    assert installing.returncode == 0, told
    assert f"{unit.name}: installed\n  runs as assetd\n" in told
    useradd = "$ useradd --system --no-create-home --shell /usr/sbin/nologin assetd\n"
    assert (useradd in told) is not has_user
    assert f"$ systemctl enable {unit.name}\n" in told
    assert site.output("a.held") == "a"

    # It runs as that user, whose are the folders that were made for it, and in both sandboxes.
    status = unit.status()
    main = unit.show("MainPID")
    assert (status["service"], str(status["pid"])) == (unit.name, main)
    assert status["sandbox"] == confinement.level(confinement.abi())
    whose = machine.run("stat", "--format=%U:%G", f"/proc/{main}", f"{unit.folder}/public")
    assert whose.stdout.split() == ["assetd:assetd", "assetd:assetd"]
    assert f", {unit.name})" in unit.assetd("status").stdout

    # A save is built; what is wrong is in the status and, with its priority, in the journal.
    site.write("assets/b.css", "b { c: d }\n")
    assert unit.assetd("sync").returncode == 0
    assert site.output("b.css") is not None
    site.write("assets/c.scss", "a { b: $no }\n")
    assert unit.assetd("sync").returncode == 1
    unit.wait("StatusText", "Idle: 3 sources, 2 outputs, 1 fails.")
    shown = unit.systemctl("status", "--no-pager").stdout
    assert 'Status: "Idle: 3 sources, 2 outputs, 1 fails."' in shown
    said = unit.said()
    assert [level for level, text in said if "started" in text] == [6]
    assert [level for level, text in said if "Undefined variable" in text] == [3]

    # It is configured anew.
    version = service.version(machine.run("systemctl", "--version").stdout)
    waits = version >= service.NOTIFY_RELOAD_SINCE
    assert unit.show("Type") == ("notify-reload" if waits else "notify")
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nignore: ['*.scss', '*.held']\n")
    assert unit.systemctl("reload").returncode == 0
    assert unit.assetd("sync").returncode == 0
    assert list(site.outputs()) == ["b.css"]
    assert unit.show("MainPID") == main

    # The machine boots again.
    assert unit.systemctl("is-enabled").stdout.strip() == "enabled"
    site.write("assets/d.txt", "written while it boots")
    machine.run("systemctl", "reboot")
    machine.wait_until_up()
    unit.wait("ActiveState", "active")
    assert site.output("d.txt") == "written while it boots"

    # And it goes.
    main = unit.show("MainPID")
    done = unit.assetd("service", "uninstall")
    assert done.returncode == 0, done.stderr
    assert installed(machine) == before
    assert unit.show("LoadState") == "not-found"
    assert machine.run("test", "-e", f"/proc/{main}").returncode == 1
    assert sorted(site.outputs()) == ["b.css", "d.txt"]
    assert done.stderr == (
        "assetd: outputs and state stay: `assetd clean` removes them\n"
        "assetd: so does the user assetd: `userdel assetd` removes it\n"
    )
    assert unit.assetd("clean").returncode == 0
    assert site.outputs() == {}
    assert unit.assetd("service", "uninstall").stdout == f"{unit.name}: was not installed\n"


def test_what_goes_wrong_under_the_system_manager(machine: Machine) -> None:
    """Nothing is half installed; hangs are restarted, refusals are not; a stop is short.

    And a configuration that is refused costs no daemon that runs.
    """
    before = installed(machine)
    unit = Service(machine, "wrong")
    site = unit.site
    site.write("assets/a.txt", "a")

    # What is refused is refused before anything is done, and the command that is told mends it.
    assert unit.assetd("build").returncode == 0
    machine.run("useradd", "builder")
    machine.run("chown", "builder:", unit.folder)
    machine.run("chmod", "700", unit.folder)
    closed = unit.assetd("service", "install", "--run-as", "nobody")
    assert closed.returncode == 2
    assert f"{unit.folder}/assetd.yml cannot be read: Permission denied" in closed.stderr
    foreign = unit.assetd("service", "install")
    assert foreign.returncode == 2
    assert f"{unit.folder}/public belongs to root and {unit.folder}/.assetd" in foreign.stderr
    give = f"chown -R builder {unit.folder}/public {unit.folder}/.assetd"
    assert f"the service runs as builder: `{give}` hands over what is there" in foreign.stderr
    assert installed(machine) == before
    assert machine.run("sh", "-c", give).returncode == 0
    unit.override("WatchdogSec=2\nTimeoutAbortSec=1\nRestartSec=100ms\n")
    site.write("assets/b.scss", "a {")
    done = unit.install()
    assert "  runs as builder\n" in done.stdout
    assert "1 source fails: `assetd errors` shows where\n" in done.stderr
    second = unit.assetd("service", "install", "--user")
    assert second.returncode == 2
    assert "`sudo assetd service uninstall --system` takes it away; two would" in second.stderr
    logs = unit.assetd("logs", "-n", "1")
    assert (logs.returncode, logs.stdout.count("\n")) == (0, 1)
    assert f"assetd is a service here: journalctl -u {unit.name} -n 1\n" in logs.stderr
    assert "] ready " in logs.stdout

    # A main process that stands still.
    first = unit.show("MainPID")
    machine.run("kill", f"-{signal.SIGSTOP.value}", first)
    unit.wait("NRestarts", "1")
    unit.wait("ActiveState", "active")
    assert unit.show("MainPID") != first
    last_words = [level for level, text in unit.said() if "Fatal Python error: Aborted" in text]
    assert last_words == [4]

    # A configuration that is refused.
    running = unit.show("MainPID")
    site.write("assetd.yml", "muonts: [assets]\n")
    refused = unit.assetd("restart")
    assert refused.returncode == 2
    assert 'assetd.yml:1: unknown key "muonts" (did you mean "mounts"?)' in refused.stderr
    assert unit.show("MainPID") == running
    assert unit.systemctl("restart").returncode != 0
    unit.wait("SubState", "failed")
    assert (unit.show("ExecMainStatus"), unit.show("NRestarts")) == ("2", "0")
    assert (4, 'assetd: assetd.yml:1: unknown key "muonts" (did you mean "mounts"?)') in unit.said()
    status = unit.assetd("status")
    assert status.returncode == 3
    assert (
        f"it is a service: `assetd start` starts it, `journalctl -u {unit.name}`" in status.stderr
    )
    start = unit.assetd("start")
    assert (start.returncode, start.stdout) == (1, "")
    assert f"assetd is a service here: systemctl start {unit.name}\n" in start.stderr
    assert 'assetd: assetd.yml:1: unknown key "muonts" (did you mean "mounts"?)\n' in start.stderr

    # Once it is mended, people's commands do what they say.
    site.write("held.py", plugins.HELD)
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nplugins: [held.py]\n")
    site.remove("assets/b.scss")
    start = unit.assetd("start")
    main = unit.show("MainPID")
    log = f"journalctl -u {unit.name}"
    assert start.stdout == f"assetd is running (pid {main}); log: {log}\n", start.stderr
    assert unit.assetd("restart").returncode == 0
    assert unit.show("MainPID") != main
    assert unit.status()["service"] == unit.name

    # Under load it is stopped in no time.
    for number in range(300):
        site.write(f"assets/{number}.held", str(number))
    unit.wait("StatusText", "Building", part=True)
    group = f"/sys/fs/cgroup{unit.show('ControlGroup')}/cgroup.procs"
    assert len(machine.run("cat", group).stdout.split()) > 1
    began = time.monotonic()
    stop = unit.assetd("stop")
    assert time.monotonic() - began < 5.0
    assert stop.returncode == 0, stop.stderr
    assert "`assetd service uninstall` takes it away" in stop.stderr
    assert (unit.show("ActiveState"), unit.show("Result")) == ("inactive", "success")
    assert machine.run("cat", group).stdout == ""
    assert unit.assetd("stop").returncode == 3
    assert unit.assetd("service", "uninstall").returncode == 0
    assert list(installed(machine)) == [*before, f"{unit.name}.d/override.conf"]
