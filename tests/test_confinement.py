"""Workers in their sandbox: on the real kernel, with plugins that try what they may not."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from assetd import confinement, publish
from assetd.confinement import Bounds, Confined
from assetd.model import Cause, Change, Deletion, Output, Publication, Reason, Source
from assetd.stamp import digest_bytes
from assetd.testing import Site, wait_for
from assetd_processors import sass_compiler, tools

ABI: Final = confinement.abi()

confined = pytest.mark.skipif(ABI == 0, reason="this kernel has no Landlock")
connections = pytest.mark.skipif(ABI < 4, reason="this kernel's Landlock knows no sockets")
signals = pytest.mark.skipif(ABI < 6, reason="this kernel's Landlock knows no signals")
node = pytest.mark.skipif(tools.node() is None, reason="Node is not there")

ACTOR: Final = """
import os, signal, socket, subprocess, tempfile, urllib.request
from pathlib import Path
from assetd.processor import Processor, same_name, suffix
from assetd_processors import tool_server

def act(step):
    here = step.scratch().parent
    exec(step.input.read_text(), globals() | {"step": step, "here": here, "root": step.project})
    if not os.path.lexists(step.output(step.path)):
        step.write(step.path, "made")

actor = Processor(name="actor", version="1", matches=suffix(".act"), outputs=same_name,
                  process=act, warm=tool_server.shared, ends=True)
"""
CONFIG: Final = "mounts: [assets]\nplugins: [tools/actor.py]\nworkers: 1\n"


def acting(root: Path, config: str = CONFIG, **codes: str) -> Site:
    """A site whose sources are run in a worker, one a code."""
    site = Site(root / "site", config)
    site.write("tools/actor.py", ACTOR)
    for name, code in codes.items():
        site.write(f"assets/{name}.act", code)
    return site


def kept(site: Site, *, state: bool = False) -> dict[str, bytes | str]:
    """All that workers may not touch, by path: contents, and where links lead."""
    found: dict[str, bytes | str] = {}
    for where, folders, names in os.walk(site.root):
        if not state and ".assetd" in folders:
            folders.remove(".assetd")
        for name in (*folders, *names):
            path = Path(where, name)
            key = str(path.relative_to(site.root))
            if path.is_symlink():
                found[key] = os.readlink(path)
            else:
                found[key] = "a folder" if path.is_dir() else path.read_bytes()
    return found


def refused(site: Site) -> str:
    """Why the only source that fails does."""
    (error,) = site.build()["errors"]
    message: str = error["message"]
    return message


# -- what they may not write ------------------------------------------------------------------

WRITES: Final = {
    "a source": ("open('assets/site.css', 'w')", "assets/site.css"),
    "a new source": ("open('assets/new.css', 'x')", "assets/new.css"),
    "the end of a source": ("os.truncate('assets/site.css', 1)", "assets/site.css"),
    "a source by another name": (
        "os.link('assets/site.css', step.output(step.path))",
        "assets/site.css",
    ),
    "a source's name": ("os.rename('assets/site.css', here / 'mine')", "assets/site.css"),
    "a source's life": ("os.unlink('assets/site.css')", "assets/site.css"),
    "a folder of sources": ("os.mkdir('assets/folder')", "assets/folder"),
    "a link among the sources": ("os.symlink('/etc', 'assets/etc')", "assets/etc"),
    "an output": ("open('public/site.css', 'w')", "public/site.css"),
    "a new output": ("open('public/evil.html', 'w')", "public/evil.html"),
    "the configuration": ("open(root / 'assetd.yml', 'a')", "assetd.yml"),
    "its own plugin": ("open('tools/actor.py', 'a')", "tools/actor.py"),
    "the record": ("open('.assetd/record.sqlite', 'r+b')", ".assetd/record.sqlite"),
    "the record's log": ("open('.assetd/record.sqlite-wal', 'r+b')", ".assetd/record.sqlite-wal"),
    "all staging": ("os.mkdir(here.parent / 'w9')", ".assetd/staging/w9"),
    "with a tool": (
        "raise step.fail(subprocess.getoutput('echo x > assets/new.css'))",
        "assets/new.css",
    ),
}


@confined
@pytest.mark.parametrize("what", WRITES)
def test_a_worker_cannot_write(tmp_path: Path, what: str) -> None:
    """Nothing but its staging and the store; its job fails with the plugin, the path, the cure."""
    code, place = WRITES[what]
    site = acting(tmp_path)
    site.write("assets/site.css", "a{}")
    site.build()
    site.write("assets/try.act", code)
    before = kept(site)
    message = refused(site)
    assert f"the sandbox forbids to write {place}: " in message
    assert "`sandbox_write` of assetd.yml" in message
    if what != "with a tool":
        assert message.startswith("actor: ")
    assert kept(site) == before


@confined
def test_a_worker_cannot_write_where_another_one_stages(tmp_path: Path) -> None:
    """What one makes, the other cannot exchange."""
    code = "(here.parent / f'w{1 - int(here.name[1:])}' / 'evil').write_text('x')"
    site = acting(tmp_path, CONFIG.replace("workers: 1", "workers: 2"))
    with site.daemon() as daemon:
        wait_for(
            lambda: [w["state"] for w in daemon.status()["workers"]] == ["idle"] * 2, "the workers"
        )
        site.write("assets/try.act", code)
        (error,) = daemon.sync()
        assert re.search(r"forbids to write \.assetd/staging/w[01]/evil:", error["message"])
        assert list(site.root.glob(".assetd/staging/*/evil")) == []


@confined
def test_a_worker_cannot_alter_the_record_through_sqlite(tmp_path: Path) -> None:
    """It may read it: some processors ask what is in place."""
    code = (
        "import sqlite3\n"
        "db = sqlite3.connect('.assetd/record.sqlite')\n"
        "print(db.execute('SELECT count(*) FROM sqlite_master').fetchone())\n"
        "db.execute('CREATE TABLE evil (x)')"
    )
    site = acting(tmp_path, one=code)
    assert "readonly database" in refused(site)


@confined
def test_a_worker_cannot_write_to_the_systems_temporary_folder(tmp_path: Path) -> None:
    """It has a private one, which goes with it."""
    outside = tmp_path / "evil"
    site = acting(
        tmp_path,
        fine="name = tempfile.NamedTemporaryFile(delete=False).name\nstep.write(step.path, name)",
        evil=f"open({str(outside)!r}, 'w')",
    )
    assert f"the sandbox forbids to write {outside}: " in refused(site)
    assert not outside.exists()
    where = Path(site.output("fine.act") or "")
    assert where.is_relative_to(site.root / ".assetd/staging")
    assert not where.exists()


@confined
def test_a_worker_that_cannot_start_for_it_says_so(tmp_path: Path) -> None:
    """A plugin's top level, its hooks and what it keeps warm are confined in a worker, too."""
    site = acting(tmp_path, one="pass")
    site.write("tools/actor.py", ACTOR + "open('tools/evil', 'a').close()\n")
    message = refused(site)
    assert message.startswith("the workers cannot start: ")
    assert "the sandbox forbids to write tools/evil: " in message


@confined
def test_what_a_worker_hands_over_lies_in_its_staging(tmp_path: Path) -> None:
    """The owner moves it, and may move what the worker may not: a source, say."""
    code = (
        "from assetd import runner\n"
        "runner._Attempt._materialize = lambda self, *_: str(root / 'assets/site.css')"
    )
    site = acting(tmp_path, try_=code)
    site.write("tools/actor.py", ACTOR.replace("ends=True", "ends=True, cheap=True"))
    site.write("assets/site.css", "a{}")
    before = {k: v for k, v in kept(site).items() if k.startswith("assets")}
    errors = site.build()["errors"]
    assert "assets/site.css is not in its staging" in errors[0]["message"]
    assert {k: v for k, v in kept(site).items() if k.startswith("assets")} == before


# -- what they may not read, reach and end ------------------------------------------------------


@confined
def test_a_worker_reads_nothing_that_nobody_named(tmp_path: Path) -> None:
    """When the configuration names it, the daemon builds what failed, by itself."""
    secret = tmp_path / "other" / "secret"
    secret.parent.mkdir()
    secret.write_text("told")
    site = acting(tmp_path, one=f"step.write(step.path, open({str(secret)!r}).read())")
    (site.root / "assets/link.txt").symlink_to(secret)
    with site.daemon() as daemon:
        message = "the sandbox forbids to open {}: name it, or its folder, in `sandbox_read`"
        found = {e["source"]: e["message"].partition(" of ")[0] for e in daemon.sync()}
        assert found == {
            "link.txt": message.format(f"assets/link.txt, which is {secret}"),
            "one.act": "actor: " + message.format(secret),
        }
        site.write("assetd.yml", CONFIG + "sandbox_read: [../other]\n")
        assert daemon.sync() == []
    assert site.outputs() == {"one.act": b"told", "link.txt": b"told"}


@confined
def test_what_the_configuration_names_may_be_read(tmp_path: Path) -> None:
    """Mounts, plugins and the paths in options, wherever they lie."""
    library = tmp_path / "lib" / "scss"
    library.mkdir(parents=True)
    (library / "_vars.scss").write_text("$c: red;")
    Site(tmp_path / "theme", "mounts: [assets]\n").write("assets/t.txt", "theme")
    plugin = tmp_path / "plugins" / "actor.py"
    plugin.parent.mkdir()
    plugin.write_text(ACTOR)
    (plugin.parent / "words").write_text("beside")
    site = Site(
        tmp_path / "site",
        "mounts: [assets, ../theme/assets]\nplugins: [../plugins/actor.py]\n"
        "sass: {load_paths: [../lib/scss]}\n",
    )
    site.write("assets/a.scss", '@import "vars"; a { b: $c }')
    code = "step.write(step.path, Path(root.parent, 'plugins/words').read_text())"
    site.write("assets/b.act", code)
    assert site.build()["errors"] == []
    assert set(site.outputs()) == {"a.css", "b.act", "t.txt"}
    assert site.output("b.act") == "beside"


@connections
@pytest.mark.parametrize(
    "how",
    [
        "socket.create_connection(('127.0.0.1', {port}))",
        "urllib.request.urlopen('http://127.0.0.1:{port}/')",
        "socket.socket().bind(('127.0.0.1', 0))",
    ],
)
def test_a_worker_opens_no_connection(tmp_path: Path, how: str) -> None:
    """Not even to this machine, and it listens nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.0)
        site = acting(tmp_path, one=how.format(port=listener.getsockname()[1]))
        assert "actor: the sandbox forbids TCP connections: `sandbox: off`" in refused(site)
        with pytest.raises(BlockingIOError):
            listener.accept()


@signals
@pytest.mark.parametrize("whom", ["the owner", "a stranger"])
def test_a_worker_cannot_signal_its_owner(tmp_path: Path, whom: str) -> None:
    """Nor anybody else whom it has not started."""
    site = acting(tmp_path)
    with site.daemon() as daemon:
        pid = daemon.process.pid if whom == "the owner" else os.getpid()
        site.write("assets/one.act", f"os.kill({pid}, signal.SIGCONT)")
        (error,) = daemon.sync()
        assert error["message"] == (
            "actor: the sandbox forbids to signal what the worker has not started"
        )
        assert daemon.process.poll() is None


@signals
def test_a_worker_may_end_what_it_has_started(tmp_path: Path) -> None:
    """Tools hang now and then."""
    code = "p = subprocess.Popen(['sleep', '600']); p.kill(); step.write(step.path, str(p.wait()))"
    site = acting(tmp_path, one=code)
    assert site.build()["errors"] == []
    assert site.output("one.act") == str(-signal.SIGKILL)


@confined
@node
@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("fs.writeFileSync(kit.root + '/assets/evil', 'x')", "forbids to write assets/evil: "),
        pytest.param(
            "await new Promise((done, fail) => require('node:net')"
            ".connect({port: +request.port, host: '127.0.0.1'}, done).on('error', fail))",
            "EACCES",
            marks=connections,
        ),
    ],
)
def test_a_tool_server_is_as_confined_as_its_worker(
    tmp_path: Path, does: str, message: str
) -> None:
    """And so is all that it starts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.0)
        port = listener.getsockname()[1]
        ask = f"tool_server.ask(step, str(root / 'tools/evil.cjs'), port={port})"
        site = acting(tmp_path, one=ask)
        does = does.replace("kit.root", "process.cwd()")
        site.write(
            "tools/evil.cjs",
            "const fs = require('node:fs');\n"
            f"module.exports = async (request, kit) => {{ {does}; return {{}}; }};\n",
        )
        assert message in refused(site)
        assert not (site.root / "assets/evil").exists()
        with pytest.raises(BlockingIOError):
            listener.accept()


# -- what works as before -----------------------------------------------------------------------


@confined
def test_compilers_and_tools_work_as_they_did(tmp_path: Path) -> None:
    """Those that run in the worker, those that it starts, and those that they start."""
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    expected = {"a.css", "site.xml", "page.html"}
    site.write("assets/a.scss", '@import "b"; a { b: $c }')
    site.write("assets/_b.scss", "$c: red;")
    site.write("assets/page.html", "<p>")
    site.write("assets/site.sitemap", "autogen:\n- mount: assets\n  files: '*.html'\n")
    config = "mounts: [assets]\nworkers: 1\nsitemap: {base_url: 'https://example.org/'}\n"
    if sass_compiler.find() is not None:
        config += "sass: {engine: dart, source_map: true}\n"
        expected.add("a.css.map")
    if tools.node() is not None and tools.missing("less") is None:
        site.write("assets/l.less", "@c: red; a { b: @c }")
        expected.add("l.css")
    if tools.node() is not None and tools.missing("esbuild") is None:
        config += "processors: all esbuild -uglifyjs -cleancss\nesbuild: {entries: [m.ts]}\n"
        site.write("assets/m.ts", "export const a: number = 1;\n")
        expected.add("m.js")
    site.write("assetd.yml", config)
    assert site.build()["errors"] == []
    assert set(site.outputs()) == expected
    assert "https://example.org/page.html" in (site.output("site.xml") or "")


@confined
def test_results_are_kept_all_the_same(tmp_path: Path) -> None:
    """Workers write to the store."""
    site = acting(tmp_path, one="pass")
    assert site.build()["batch"]["built"] == 1
    (site.root / "public/one.act").unlink()
    site.remove("assets/one.act")
    site.build()
    site.write("assets/one.act", "pass")
    assert site.build()["batch"]["cached"] == 1


@confined
def test_a_mount_that_is_replaced_by_another_folder_is_built_on(tmp_path: Path) -> None:
    """The bounds are about the folder that was there when a worker began."""
    mount = tmp_path / "theme"
    mount.mkdir()
    (mount / "a.txt").write_text("one")
    site = Site(tmp_path / "site", "mounts: [../theme]\nworkers: 1\n")
    with site.daemon() as daemon:
        mount.rename(tmp_path / "gone")
        mount.mkdir()
        (mount / "a.txt").write_text("two")
        assert daemon.sync() == []
        assert site.outputs() == {"a.txt": b"two"}


# -- publishing while somebody moves the folders -------------------------------------------------

SWAPS: Final = int(os.environ.get("ASSETD_TEST_SWAPS", "3000"))

HOSTILE: Final = """
import contextlib, mmap, os, sys
out, outside, note = sys.argv[1:]
with open(note, "r+b") as file:
    count = mmap.mmap(file.fileno(), 8)
# Each in turn becomes a link to the like of it outside, and itself again.
names = ("css", "css/deep", "site.css", "css/deep/site.css", "")
number = 0
while True:
    for name in names:
        here, away = os.path.join(out, name).rstrip("/"), out + "-away"
        with contextlib.suppress(OSError):
            os.rename(here, away)
            os.symlink(os.path.join(outside, name), here)
            number += 1
            count[:] = number.to_bytes(8, "little")
        with contextlib.suppress(OSError):
            os.unlink(here)
        with contextlib.suppress(OSError):
            os.rename(away, here)
"""


def test_nothing_is_written_through_a_folder_that_turns_into_a_link(tmp_path: Path) -> None:
    """However often somebody swaps them while outputs are put in place and taken away."""
    out, outside, staging = tmp_path / "public", tmp_path / "outside", tmp_path / "staging"
    names = ("site.css", "css/site.css", "css/deep/site.css", "css/deep/other.css")
    for folder in (out, outside):
        (folder / "css/deep").mkdir(parents=True)
    staging.mkdir()
    for name in names[:3]:
        (outside / name).write_text("theirs")

    def look() -> dict[str, tuple[int, int, str]]:
        return {
            str(path): (path.stat().st_ino, path.stat().st_mtime_ns, "" if path.is_dir() else "f")
            for path in outside.rglob("*")
        }

    before = look()
    note = tmp_path / "swaps"
    note.write_bytes(bytes(8))
    known: dict[str, Output] = {}
    placed = linked = serial = 0
    hostile = subprocess.Popen([sys.executable, "-c", HOSTILE, out, outside, note])
    try:
        deadline = time.monotonic() + 30.0 + SWAPS / 300
        while int.from_bytes(note.read_bytes(), "little") < SWAPS or placed < 100:
            assert time.monotonic() < deadline, (note.read_bytes(), placed, linked)
            put = []
            for name in names:
                serial += 1
                staged = staging / str(serial)
                staged.write_text(f"ours {serial}")
                digest = digest_bytes(staged.read_bytes())
                put.append(Publication(name, Source("m", name), digest, str(staged), None))
            done = publish.apply(
                str(out), Change(1, publish=tuple(put)), known.get, bool, take_over=True
            )
            placed += len(done.placed)
            linked += sum("link" in blocked.message for blocked in done.blocked.values())
            for each in put:
                if each.output in done.placed:
                    stamp = done.placed[each.output]
                    known[each.output] = Output(each.output, each.source, each.digest, stamp)
            delete = tuple(
                Deletion(name, output.source, output.digest, Reason(Cause.SOURCE_GONE))
                for name, output in known.items()
            )
            publish.apply(str(out), Change(2, delete=delete), known.get, bool)
            for path in staging.iterdir():
                path.unlink()
    finally:
        hostile.kill()
        hostile.wait()
    assert look() == before
    assert [(outside / name).read_text() for name in names[:3]] == ["theirs"] * 3
    assert linked, "no swap was met: the test shows nothing"


def test_a_staged_file_that_turned_into_a_link_is_not_published(tmp_path: Path) -> None:
    """Staging is a worker's: what lies there when it is moved need not be what was looked at."""
    staged = tmp_path / "staged"
    staged.symlink_to("/etc/passwd")
    put = Publication("a.css", Source("m", "a.css"), digest_bytes(b"a"), str(staged), None)
    done = publish.apply(str(tmp_path / "public"), Change(1, publish=(put,)), lambda _: None, bool)
    assert list(done.blocked) == ["a.css"]
    assert os.listdir(tmp_path / "public") == []


# -- the key ------------------------------------------------------------------------------------


@confined
def test_people_are_told_what_confines_the_workers(tmp_path: Path) -> None:
    """In the status, and once in the log."""
    site = acting(tmp_path, one="pass")
    with site.daemon() as daemon:
        assert daemon.status()["sandbox"] == f"landlock abi {ABI}"
        site.write("assets/two.act", "pass")
        daemon.sync()
        assert daemon.log.count(f"landlock abi {ABI}") == 1


def test_off_confines_nobody(tmp_path: Path) -> None:
    """Whatever the kernel has."""
    site = acting(tmp_path, CONFIG + "sandbox: off\n", one="Path('notes').write_text('x')")
    with site.daemon() as daemon:
        assert daemon.sync() == []
        assert daemon.status()["sandbox"] == "off"
    assert (site.root / "notes").read_text() == "x"


@confined
def test_required_is_content_where_there_is_landlock(tmp_path: Path) -> None:
    """It confines like `auto`."""
    site = acting(tmp_path, CONFIG + "sandbox: required\n", one="Path('notes').write_text('x')")
    assert "the sandbox forbids to write notes: " in refused(site)


@confined
def test_a_folder_may_be_opened_for_writing(tmp_path: Path) -> None:
    """A running daemon builds what failed for want of it."""
    site = acting(tmp_path, one="Path('notes/x').write_text('x')")
    (site.root / "notes").mkdir()
    with site.daemon() as daemon:
        assert len(daemon.sync()) == 1
        site.write("assetd.yml", CONFIG + "sandbox_write: [notes]\n")
        assert daemon.sync() == []
    assert (site.root / "notes/x").read_text() == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sandbox: on", "sandbox: expected auto, off or required, found"),
        ("sandbox_read: [nowhere]", "sandbox_read: 'nowhere' is not there"),
        ("sandbox_read: /", "is everything: say `sandbox: off`"),
        ("sandbox_write: public", "sandbox_write: 'public' and out_dir lie one in the other"),
        ("sandbox_write: .", "sandbox_write: '.' and out_dir lie one in the other"),
        ("sandbox_write: .assetd", "and state_dir lie one in the other"),
    ],
)
def test_what_cannot_be_opened_is_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    """With the line that it stands in."""
    site = acting(tmp_path, CONFIG + text + "\n")
    for folder in ("public", ".assetd"):
        (site.root / folder).mkdir()
    done = site.run("build")
    assert done.returncode == 2
    assert done.stderr.startswith("assetd: assetd.yml:4: ")
    assert message in done.stderr.replace('"', "'")


# -- a kernel without it ------------------------------------------------------------------------

WITHOUT: Final = """
import ctypes, os, struct, sys
# A filter for system calls that has landlock_create_ruleset (444) answer ENOSYS, as a kernel does
# that was built without Landlock, or EPERM, as containers do: linux/filter.h, linux/seccomp.h.
error = int(sys.argv.pop(1))
steps = (
    *((0x20, 0, 0, 0), (0x15, 0, 1, 444)),
    *((0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000)),
)
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.executable, [sys.executable, "-P", "-m", "assetd", *sys.argv[1:]])
"""


@contextmanager
def without_landlock(
    site: Site, *arguments: str, error: int = errno.ENOSYS
) -> Iterator["subprocess.Popen[str]"]:
    """`assetd` as on a kernel that answers with *error* when it is asked for Landlock."""
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT, str(error), *arguments],
        cwd=site.root,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30.0)


def test_a_kernel_without_landlock_builds_all_the_same(tmp_path: Path) -> None:
    """And says so."""
    site = acting(tmp_path, one="Path('notes').write_text('x')")
    with without_landlock(site, "run"):

        def status() -> dict[str, Any]:
            done = site.run("status", "--json")
            told: dict[str, Any] = json.loads(done.stdout) if done.returncode in {0, 1} else {}
            return told if told.get("state") == "idle" else {}

        assert wait_for(status, "the daemon")["sandbox"] == "none: the kernel has no Landlock"
    assert site.output("one.act") == "made"
    assert (site.root / "notes").read_text() == "x"


@pytest.mark.parametrize(
    ("command", "error", "why"),
    [
        ("run", errno.ENOSYS, "the kernel has no Landlock"),
        ("build", errno.ENOSYS, "the kernel has no Landlock"),
        ("build", errno.EOPNOTSUPP, "the kernel has no Landlock"),
        ("build", errno.EPERM, "a filter of system calls forbids it"),
    ],
)
def test_required_refuses_to_do_without_landlock(
    tmp_path: Path, command: str, error: int, why: str
) -> None:
    """In one sentence, before anything is built; it is not the kernel's fault in a container."""
    site = acting(tmp_path, CONFIG + "sandbox: required\n", one="pass")
    with without_landlock(site, command, error=error) as process:
        _, told = process.communicate(timeout=30.0)
        assert told == (
            f"assetd: assetd.yml:4: sandbox: required, but {why}: say `auto` to do without\n"
        )
        assert process.returncode == 2
    assert site.outputs() == {}


# -- the calls ----------------------------------------------------------------------------------


@confined
@pytest.mark.parametrize("version", range(1, ABI + 1))
def test_every_version_of_the_interface_is_spoken(tmp_path: Path, version: int) -> None:
    """An older kernel gets what it knows, and no more: it would refuse the rest."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    script = (
        "import os, sys, socket\n"
        "from assetd import confinement\n"
        f"confinement.abi = lambda: {version}\n"
        "confinement.Confined(confinement.Bounds('/', confinement.surroundings(), (), "
        "(sys.argv[1],)))\n"
        "open(os.path.join(sys.argv[1], 'x'), 'w').close()\n"
        "for attempt in (lambda: open(os.path.join(sys.argv[2], 'x'), 'w'),\n"
        "                lambda: socket.socket().bind(('127.0.0.1', 0)),\n"
        "                lambda: os.kill(os.getppid(), 0)):\n"
        "    try:\n"
        "        attempt()\n"
        "        print('done')\n"
        "    except PermissionError:\n"
        "        print('denied')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, mine, other],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    expected = ["denied", *("denied" if version >= since else "done" for since in (4, 6))]
    assert done.stdout.split() == expected
    assert os.listdir(mine) == ["x"]
    assert os.listdir(other) == []


def test_a_ruleset_that_the_kernel_refuses_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do about it."""
    monkeypatch.setattr(confinement, "_CREATE_RULESET", 0x7FFF)  # no such system call
    monkeypatch.setattr(confinement, "abi", lambda: 7)
    with pytest.raises(confinement.ConfinementError, match=r"not implemented; `sandbox: off`"):
        Confined(Bounds(str(tmp_path), ()))


def test_bounds_name_each_place_once(tmp_path: Path) -> None:
    """What lies in another one, leads to it, is not there or is the root says nothing new."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    given = [tmp_path / name for name in ("link", "a/b", "a", "nothing")]
    assert confinement.reduced(["/", "relative", *map(str, given)]) == (str(tmp_path / "a"),)


def test_the_home_of_a_tool_is_above_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """But never a whole home folder, with its keys."""
    monkeypatch.setenv("HOME", "/srv/ada")
    assert confinement.tool_home("/srv/ada/.rbenv/shims") == "/srv/ada/.rbenv"
    assert confinement.tool_home("/srv/node/bin") == "/srv/node"
    for folder in ("/srv/ada/bin", "/srv/ada/.local/bin", "/srv/bin", "/bin", "/srv/tools"):
        assert confinement.tool_home(folder) == folder


def test_bounds_cross_a_pipe() -> None:
    """As JSON."""
    bounds = Bounds("/p", ("/a", "/b"), ("/c",), ("/d",))
    assert Bounds.of(json.loads(json.dumps(bounds.row()))) == bounds


def test_what_the_sandbox_did_not_forbid_is_not_blamed_on_it(tmp_path: Path) -> None:
    """A file that is missing, or that the disk refuses, is what it was."""
    bounds = Bounds(str(tmp_path), (str(tmp_path),), (), (str(tmp_path / "mine"),))
    (tmp_path / "mine").mkdir()
    for error in (
        FileNotFoundError(2, "No such file", str(tmp_path / "x")),
        OSError(28, "No space left", str(tmp_path / "x")),
        PermissionError(13, "Permission denied", str(tmp_path / "mine" / "x")),
        ValueError("nothing at assets/x"),
    ):
        assert bounds.denied(error) is None
