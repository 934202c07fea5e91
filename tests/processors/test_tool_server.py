"""The tool server answers, whatever a tool does to its process."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assetd.errors import AssetdError
from assetd.processor import Tool
from assetd.testing import wait_for
from assetd_processors import tool_server
from assetd_processors import tools as node_tools
from assetd_processors.tool_server import Answer, Remark, ToolServer, ToolServerError

TOOL = r"""
'use strict';
const fs = require('fs');
const kept = [];
const deeds = {
  echo: (r) => r,
  pid: () => ({ pid: process.pid }),
  print: () => {
    console.log('{"id": 1, "value": "no"}');
    console.error('x');
    return { ok: true };
  },
  warn: (r, kit) => { kit.warn('careful'); kit.warn({ message: 'there', line: 3 }); return {}; },
  read: (r) => {
    for (const f of r.files) try { fs.readFileSync(f); } catch { /* not there */ }
    while (r.hang) { /* */ }
    if (r.wrong) throw { message: r.wrong, file: 'f', line: 1, column: 2 };
    return {};
  },
  raise: () => { throw new TypeError('a bug'); },
  later: () => new Promise(() => setTimeout(() => { throw new Error('much later'); }, 1)),
  reject: () => new Promise(() => { Promise.reject(new Error('nobody waits for me')); }),
  exit: () => process.exit(3),
  crash: () => process.abort(),
  crash_once: (r) => {
    if (fs.existsSync(r.flag)) return { ok: true };
    fs.writeFileSync(r.flag, '');
    process.kill(process.pid, 'SIGKILL');
    for (;;) { /* until it arrives */ }
  },
  hang: (r) => { if (r.flag) fs.writeFileSync(r.flag, String(process.pid)); for (;;) { /* */ } },
  wait: () => new Promise(() => { setInterval(() => {}, 1000); }),
  grow: (r) => { kept.push(Buffer.alloc(r.mb << 20, 1)); return { pid: process.pid }; },
  growing: () => new Promise(() => {
    setInterval(() => kept.push(Buffer.alloc(20 << 20, 1)), 20);
  }),
  env: () => ({ names: Object.keys(process.env) }),
  half: () => ({ text: 'a\ud800b' }),
};
module.exports = async (request, kit) => deeds[request.deed](request, kit);
"""


class Asked:
    """A tool of the test's own on a server of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tool = folder / "deed.cjs"
        self.tool.write_text(TOOL)
        self.server = ToolServer(memory_bytes=256 << 20)
        self.heard: list[str] = []
        """What the tool was heard to read, before it answered."""

    def __call__(self, deed: str, *, timeout: float = 20.0, **request: Any) -> Answer:
        return self.server.call(
            str(self.tool),
            {"deed": deed, **request},
            cwd=self.folder,
            timeout_seconds=timeout,
            on_read=self.heard.append,
        )


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    asked = Asked(tmp_path.resolve())
    yield asked
    asked.server.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10.0
    while is_alive(pid):
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.01)


# Requests


def test_one_process_answers_everything(asked: Asked) -> None:
    """It starts with the first request, and is warm from then on."""
    assert asked.server.pid is None
    first = asked("pid").value
    assert first == {"pid": asked.server.pid}
    assert asked("pid").value == first
    text = "é\n" * 300_000
    assert asked("echo", text=text).value == {"deed": "echo", "text": text}


def test_what_tools_print_is_not_the_protocol(
    asked: Asked, capfd: pytest.CaptureFixture[str]
) -> None:
    """It goes to the log, with all that the worker prints."""
    assert asked("print").value == {"ok": True}
    assert asked("print").value == {"ok": True}
    assert '"no"' in capfd.readouterr().err


def test_warnings_and_errors_have_places(asked: Asked) -> None:
    """As far as the tool knows them."""
    assert asked("warn").warnings == (Remark("careful"), Remark("there", line=3))
    wrong = asked("read", files=[], wrong="bad")
    assert (wrong.value, wrong.error) == (None, Remark("bad", "f", 1, 2))


def test_what_was_read_and_what_was_missed_is_known(asked: Asked) -> None:
    """Also when the tool fails; folders and what lies far above the project do not count."""
    (asked.folder / "there").write_text("")
    (asked.folder / "folder").mkdir()
    files = ["there", "folder", "missing/deep", "../outside", "/nowhere/x", "/proc/stat"]
    expected = [str(asked.folder / "there"), str(asked.folder / "missing/deep")]
    for wrong in (None, "bad"):
        assert list(asked("read", files=files, wrong=wrong).reads) == expected
    beside = asked.folder.parent / "beside"
    beside.mkdir()
    assert list(asked("read", files=["../beside/x"]).reads) == [str(beside / "x")]
    assert list(asked("echo").reads) == []


def test_a_project_in_shared_memory_is_one() -> None:
    """Devices are no files, but what lies below `/dev/shm` may be a project."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        asked = Asked(Path(folder))
        (asked.folder / "there").write_text("")
        try:
            reads = asked("read", files=["there", "missing", "/dev/null", "/dev/shm/no"]).reads
        finally:
            asked.server.close()
        assert list(reads) == [f"{folder}/there", f"{folder}/missing"]


def test_half_a_character_does_not_break_the_pipe(asked: Asked) -> None:
    """JavaScript has texts that UTF-8 has not."""
    assert asked("half").value == {"text": "a\ufffdb"}


def test_variables_that_change_results_are_left_out(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no part of any key: the daemon's environment is not the shell's."""
    monkeypatch.setenv("NODE_OPTIONS", "--throw-deprecation")
    monkeypatch.setenv("BROWSERSLIST", "ie 6")
    monkeypatch.setenv("KEPT", "1")
    value = asked("env").value
    assert value is not None
    assert "KEPT" in value["names"]
    assert not {"NODE_OPTIONS", "BROWSERSLIST"} & set(value["names"])


# What tools do to their process


def test_a_tool_that_raises_leaves_the_process_alone(asked: Asked) -> None:
    """Neither does one that wants to end it."""
    pid = asked("pid").value
    assert asked("raise").error == Remark("a bug")
    wrong = asked("exit").error
    assert wrong is not None
    assert "wanted to end its process (exit code 3)" in wrong.message
    assert asked("pid").value == pid


@pytest.mark.parametrize(
    ("deed", "message"), [("later", "much later"), ("reject", "nobody waits for me")]
)
def test_an_error_that_nobody_caught_is_the_request_s(
    asked: Asked, deed: str, message: str
) -> None:
    """It may have broken more than that, so the next request gets a fresh process."""
    pid = asked("pid").value
    assert asked(deed).error == Remark(message)
    assert asked("pid").value not in (None, pid)


def test_a_process_that_is_killed_is_replaced_and_the_request_tried_again(asked: Asked) -> None:
    """Nobody notices one crash."""
    asked("pid")
    flag = asked.folder / "flag"
    assert asked("crash_once", flag=str(flag)).value == {"ok": True}


def test_a_process_that_is_killed_while_it_works(asked: Asked) -> None:
    """From outside: the request that it was at is asked again, and meets a fresh one."""
    asked("pid")
    first = asked.server.pid
    assert first is not None
    killer = threading.Timer(0.3, os.kill, (first, signal.SIGKILL))
    killer.start()
    with pytest.raises(ToolServerError, match=r"deed: Node gave no answer within 1\.5 s"):
        asked("wait", timeout=1.5)
    killer.join()
    assert asked("echo").value == {"deed": "echo"}
    assert asked.server.pid != first


def test_a_request_that_always_crashes_fails(asked: Asked) -> None:
    """With what happened; the next one works."""
    with pytest.raises(ToolServerError, match=r"^deed: Node was ended by SIG(ABRT|TRAP)$"):
        asked("crash")
    assert asked("echo").value == {"deed": "echo"}


@pytest.mark.parametrize("deed", ["hang", "wait"])
def test_a_request_that_hangs_fails_in_time(asked: Asked, deed: str) -> None:
    """Busy or idle, its process is ended; the next request gets another."""
    asked("pid")
    pid = asked.server.pid
    assert pid is not None
    began = time.monotonic()
    with pytest.raises(ToolServerError, match=r"^deed: Node gave no answer within 0\.5 s$"):
        asked(deed, timeout=0.5)
    assert time.monotonic() - began < 5.0
    assert not is_alive(pid)
    assert asked("echo").value == {"deed": "echo"}


def test_what_a_request_read_is_known_though_it_hangs(asked: Asked) -> None:
    """Or mending that would not build again what hung on it."""
    paths = [str(asked.folder / name) for name in ("deed.cjs", "not-there", "süß")]
    with pytest.raises(ToolServerError):
        asked("read", files=paths, hang=True, timeout=0.5)
    assert asked.heard == paths
    many = [str(asked.folder / f"{number}" / ("x" * 200)) for number in range(5_000)]
    assert list(asked("read", files=many).reads) == many
    assert asked.heard == [*paths, *many]


def test_a_process_that_has_grown_is_replaced_after_its_answer(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaks a little does not fail."""
    monkeypatch.setattr(tool_server, "_LOOK_SECONDS", 10.0)
    small = asked("grow", mb=10).value
    assert asked("grow", mb=400).value == small
    assert asked.server.pid is None
    assert asked("pid").value != small


def test_a_request_that_grows_without_end_is_ended(asked: Asked) -> None:
    """Before the machine is."""
    with pytest.raises(ToolServerError, match=r"^deed: Node grew to \d+ MB and was ended$"):
        asked("growing")
    assert asked("echo").value == {"deed": "echo"}


# With its worker


WORKER = """
import sys
sys.path[:0] = {path!r}
from assetd_processors.tool_server import ToolServer
server = ToolServer()
server.call({tool!r}, {{"deed": "pid"}}, cwd={cwd!r})
print(server.pid, flush=True)
{then}
"""


def worker(asked: Asked, then: str) -> subprocess.Popen[str]:
    script = WORKER.format(path=sys.path, tool=str(asked.tool), cwd=str(asked.folder), then=then)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_it_ends_with_its_worker(asked: Asked) -> None:
    """However that ends."""
    with worker(asked, "sys.stdin.read()") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    wait_until_gone(pid)


def test_it_ends_with_its_worker_even_if_a_tool_hangs(asked: Asked) -> None:
    """A busy Node does not see that its pipe is closed, so the kernel ends it."""
    flag = asked.folder / "busy"
    then = f'server.call({str(asked.tool)!r}, {{"deed": "hang", "flag": {str(flag)!r}}}, cwd="/")'
    with worker(asked, then) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        deadline = time.monotonic() + 10.0
        while not (flag.exists() and flag.read_text() == str(pid)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    wait_until_gone(pid)


def test_there_is_one_for_all_processors_of_a_process() -> None:
    """A worker has one Node, whatever its processors are."""
    assert tool_server.shared() is tool_server.shared(None)


# What is missing


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Node, npm and packages."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(node_tools, "_wheel", lambda: None)
    return empty


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_node_the_cure_names_it(nothing: Path, asked: Asked) -> None:
    """Node comes from the distribution or from an extra of ours."""
    told = node_tools.tool("less")()
    assert (told.name, told.version) == ("less", None)
    assert told.cure is not None
    assert "pip install 'assetd[node]'" in told.cure
    with pytest.raises(ToolServerError, match="Node is not there: install Node 18 or later"):
        asked("echo")


def test_without_packages_the_cure_is_a_command(nothing: Path) -> None:
    """Nothing is started to find that out."""
    script(nothing, "node", "echo no >&2; exit 1")
    assert node_tools.tool("less")() == Tool("less", None, "run `assetd tools install`")


def test_whoever_cannot_install_them_is_told_who_can(nothing: Path, tmp_path: Path) -> None:
    """A service of the machine looks below /var/lib: installed as before, they do not help it."""
    script(nothing, "node", "exit 1")
    if os.geteuid() != 0:
        pytest.skip("only root makes folders of other users")
    (tmp_path / "data").mkdir()
    shutil.chown(tmp_path / "data", "daemon")
    cure = f"run `sudo env XDG_DATA_HOME={tmp_path}/data assetd tools install`"
    assert node_tools.tool("less")() == Tool("less", None, cure)


def test_packages_that_are_closed_to_us_are_not_there(nothing: Path) -> None:
    """They were of no use to anybody but root, and a project without Less was refused as well."""
    script(nothing, "node", "exit 1")
    folder = node_tools.packages()
    (folder / "less").mkdir(parents=True)
    (folder / "less" / "package.json").write_text("{}")
    folder.parent.chmod(0)
    words = [
        sys.executable,
        "-c",
        "from assetd_processors import tools; print(tools.tool('less')())",
    ]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv", path=os.defpath)
        if setpriv is None:
            pytest.skip("root may read everything, and there is no setpriv to end that")
        words = [setpriv, "--bounding-set=-all", "--inh-caps=-all", *words]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        folder.parent.chmod(0o755)
    assert done.stdout == "Tool(name='less', version=None, cure='run `assetd tools install`')\n"


def test_what_is_installed_is_for_others_to_read(nothing: Path) -> None:
    """A service runs as another user; what an older assetd has installed is opened up too."""
    script(nothing, "node", "exit 1")
    script(nothing, "npm", "/bin/mkdir node_modules")
    folder = node_tools.packages().parent
    before = os.umask(0o022)
    try:
        node_tools.install(io.StringIO())
        assert folder.stat().st_mode & 0o777 == 0o755
        folder.chmod(0o700)
        node_tools.install(io.StringIO())
        assert folder.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_node_that_does_not_run_is_told(nothing: Path, asked: Asked) -> None:
    """A name on the PATH may be a shim with nothing behind it."""
    script(nothing, "node", "exit 7")
    with pytest.raises(ToolServerError, match="deed: Node ended with exit code 7"):
        asked("echo")


def test_a_package_that_is_not_there_is_named(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that was started before somebody removed them."""
    monkeypatch.setenv("XDG_DATA_HOME", str(asked.folder))
    answer = asked.server.call("svgo", {"path": "/x.svg", "text": "", "config": {}}, cwd="/")
    assert answer.error == Remark("svgo is not installed: run `assetd tools install`")


@pytest.mark.parametrize(
    ("npm", "told"),
    [
        (None, "npm is not there: install it"),
        (
            "echo 'npm error code ENOTFOUND' >&2; exit 1",
            "npm cannot reach its registry: check the network",
        ),
        (
            "echo 'npm error code EINTEGRITY' >&2; exit 1",
            "npm was given a package that is not the one of our lock file",
        ),
        ("echo 'npm error code EACCES' >&2; exit 3", "npm ci failed with exit code 3: code EACCES"),
    ],
)
def test_an_install_that_fails_says_why(
    nothing: Path, tmp_path: Path, npm: str | None, told: str
) -> None:
    """And leaves nothing behind that looks installed."""
    if npm is not None:
        script(nothing, "node", "exit 1")
        script(nothing, "npm", npm)
    with pytest.raises(AssetdError) as caught:
        node_tools.install(io.StringIO())
    assert str(caught.value).startswith(told)
    assert list(tmp_path.glob("data/assetd/node/*")) == []


def test_what_is_installed_is_not_installed_again(tools: Path) -> None:
    """Nothing goes to the network."""
    said = io.StringIO()
    node_tools.install(said)
    assert said.getvalue() == f"the tools are in place: {tools.parent}\n"
    lock = json.loads((node_tools.HERE / "package-lock.json").read_text())["packages"]
    wanted = json.loads((node_tools.HERE / "package.json").read_text())["dependencies"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    for name in wanted:
        told = node_tools.tool(name)()
        assert told.version is not None
        assert told.version.partition("+")[0] == wanted[name]


def test_tools_of_other_versions_that_nobody_uses_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a month; never ours, one that a process runs from, nor what is not of our making."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ours = node_tools.packages().parent
    month = ("1" * 16, "2" * 16, ".installing-x", ".removing-y", "notes", "link", ours.name)
    for name in (*month, "3" * 16):
        if name != "link":
            (ours.parent / name / "node_modules").mkdir(parents=True)
    (ours.parent / "2222222222222222" / "node_modules" / "x").write_text("")
    (tmp_path / "mine").mkdir()
    (ours.parent / "link").symlink_to(tmp_path / "mine")
    (ours.parent / ("4" * 16)).symlink_to(tmp_path / "mine")
    past = time.time() - node_tools.UNUSED_SECONDS - 60
    for name in month:
        os.utime(ours.parent / name, (past, past))
    used = ours.parent / ("1" * 16)
    runs = "import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", runs, used / "node_modules"]) as process:
        # The kernel has closed our pipe to it before it shows what it runs.
        wait_for(Path(f"/proc/{process.pid}/cmdline").read_bytes, "it to run")
        said = io.StringIO()
        node_tools.install(said)
        process.kill()
    left = {path.name for path in ours.parent.iterdir()}
    assert left == {"1" * 16, "3" * 16, "4" * 16, "notes", "link", ours.name}
    assert f"unused for a month: {ours.parent}/2222222222222222\n" in said.getvalue()
    assert ours.stat().st_mtime > past + 60, "it is in use"


def test_a_server_that_starts_marks_its_packages_as_used(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else tells that an old daemon still needs them."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = node_tools.packages().parent
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    assert asked("echo").value
    assert folder.stat().st_mtime > 0


def test_an_update_of_what_a_tool_brings_along_is_one_of_the_tool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Browserify is a hundred packages, and each makes a part of the bundle."""
    lock = json.loads((node_tools.HERE / "package-lock.json").read_text())
    before = {name: node_tools._version.__wrapped__(name) for name in ("browserify", "svgo")}
    lock["packages"]["node_modules/acorn"]["version"] = "99.0.0"
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    monkeypatch.setattr(node_tools, "HERE", tmp_path)
    monkeypatch.setattr(node_tools, "_lock_entries", node_tools._lock_entries.__wrapped__)
    after = {name: node_tools._version.__wrapped__(name) for name in ("browserify", "svgo")}
    assert after["browserify"] != before["browserify"]
    assert after["svgo"] == before["svgo"]


def test_the_lock_file_names_no_registry() -> None:
    """People install from where their npm is told to."""
    text = (node_tools.HERE / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert '"integrity"' in text
