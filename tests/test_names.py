"""Names, sizes and times that nobody expects: none is missed, hung on, or printed raw."""

import itertools
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from assetd.testing import Daemon, Site, wait_for

CONFIG = "mounts: [assets]\nworkers: 1\nprocessors: [sass, concat, copy]\n"

NAMES = (
    b"new\nline",
    b"\n",
    b"carriage\rreturn",
    b"tab\tbell\abackspace\b",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    "\x9b31m\x85".encode(),
    "\u202egnp\u2028\ufeff\u200b".encode(),
    b"\x7f",
    b"latin-\xe9\xff\xfe",
    b"\x9b31m raw",
    b"cut-\xf0\x9f",
    b"[bold]markup[/bold] [link=x]",
    b"<b>&amp;</b>",
    b"%s %(x)s {0} $(id) `id` ${HOME}",
    b"'\"\\ back\\nslash",
    b"* ? [a-z] !(x)",
    b"-rf --help",
    b" leading and trailing ",
    b"~home",
    b"...",
    "Zoë ☃ \U0001f4a9 日本".encode(),
    b"NFC-\xc3\xa9",
    b"NFD-e\xcc\x81",
    b"#!: |>&*%@,",
    b"null",
)
"""Each as a name of files and of a folder."""
RAW = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]")
"""What a terminal obeys, but for the end of a line."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with the mount `assets`."""
    (tmp_path / "site").mkdir()
    return Site(tmp_path / "site", CONFIG)


def assert_clean(site: Site) -> None:
    """The outputs are those of a build that knows nothing of before."""
    assert site.outputs() == site.clean_build()


def printed(site: Site, *arguments: str | bytes) -> bytes:
    """All that a command prints, with a narrow terminal and without."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "assetd", *arguments],
        cwd=site.root,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "60"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 1}, done.stderr
    assert b"Traceback" not in done.stderr
    return done.stdout + done.stderr


def is_harmless(text: bytes) -> bool:
    """Whether a terminal only shows it; says what it would not."""
    text.decode()  # UTF-8 throughout
    found = RAW.search(text)
    assert found is None, text[max(0, found.start() - 60) : found.end() + 60]
    return True


# -- names -------------------------------------------------------------------------------------


@pytest.fixture
def named(site: Site) -> Site:
    """Sources of every name, right ones and wrong ones, and folders of every name."""
    for name in NAMES:
        text = os.fsdecode(name)
        site.write(f"assets/{text}.txt", name)
        site.write(f"assets/{text}.scss", "a { b: $no }")
        site.write(f"assets/in/{text}/good.scss", "a { b: c }")
        part = "nope" if len(name) % 2 else "a"
        site.write(f"assets/in/{text}/all.js.concat", f"files: [{part}]")
        site.write(f"assets/in/{text}/a", name)
    return site


def test_any_name_is_built_and_followed(named: Site) -> None:
    """Bytes are what the file system gives; only a slash and NUL are special."""
    with named.daemon() as daemon:
        daemon.sync()
        assert_clean(named)
        for name in NAMES:
            text = os.fsdecode(name)
            assert named.outputs()[f"{text}.txt"] == name
            named.write(f"assets/{text}.txt", name * 2)
            named.write(f"assets/{text}.scss", "a { b: mended }")
        daemon.sync()
        assert_clean(named)
        for name in NAMES:
            (named.root / "assets" / os.fsdecode(name + b".txt")).rename(
                named.root / "assets" / os.fsdecode(name + b".moved")
            )
            named.remove(f"assets/in/{os.fsdecode(name)}")
        daemon.sync()
        assert_clean(named)
        assert not any(b"Traceback" in line for line in log_of(daemon))


def test_a_folder_whose_name_is_not_utf_8_may_go(site: Site) -> None:
    """The record was asked for it as a text, refused, and was set aside as damaged."""
    folder = os.fsdecode(b"latin-\xe9")
    site.write(f"assets/{folder}/a.txt", "a")
    site.write("assets/b.txt", "b")
    with site.daemon() as daemon:
        daemon.sync()
        site.remove(f"assets/{folder}")
        assert daemon.sync() == []
        assert site.outputs() == {"b.txt": b"b"}
        assert "damaged" not in daemon.log


def log_of(daemon: Daemon) -> list[bytes]:
    return daemon._log.read_bytes().splitlines()


def test_no_raw_control_byte_is_printed(named: Site) -> None:
    """Not of a name, an excerpt, a reason or an event; by no command, and not in the log."""
    named.write("assets/excerpt.scss", b"a { b: \x1b[31m\x07\xff $no \r }\n")
    with named.daemon() as daemon:
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "assetd", "events"],
            cwd=named.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as listener:
            assert listener.stdout is not None
            stdout = listener.stdout
            os.set_blocking(stdout.fileno(), False)
            told = bytearray()
            turns = itertools.count()

            def hears(name: str) -> bool:
                named.write(f"assets/{name}.txt", f"{next(turns)}")
                told.extend(stdout.read() or b"")
                return name.encode() in told

            try:
                wait_for(lambda: hears("the-beginning"), "the first event")
                for name in NAMES:
                    named.write(f"assets/{os.fsdecode(name)}.scss", "a { b: $still_no }")
                    named.write(f"assets/{os.fsdecode(name)}.txt", "edited")
                daemon.sync()
                wait_for(lambda: hears("the-end"), "the last event")
            finally:
                listener.kill()
        assert told.count(b"failed") >= len(NAMES)
        assert is_harmless(bytes(told))
        for command in (
            *(["status"], ["errors"], ["list"], ["list", "--state", "failed"], ["sync"]),
            *(["config"], ["doctor"], ["metrics"], ["verify"], ["build", "--dry-run"]),
        ):
            assert is_harmless(printed(named, *command)), command
            if command[0] in {"status", "errors", "list", "verify"}:
                assert is_harmless(printed(named, *command, "--json")), command
        for number, name in enumerate(NAMES):
            path = (name + b".scss", b"in/" + name + b"/all.js.concat")[number % 2]
            for asked in ("tree", "why"):
                assert is_harmless(printed(named, asked, b"./assets/" + path)), path
        daemon.end()
        assert is_harmless(b"\n".join(log_of(daemon)))
    assert is_harmless(printed(named, "build"))


def test_the_log_of_a_daemon_in_the_background_holds_no_raw_control_byte(named: Site) -> None:
    """It is a file that people read in a terminal."""
    try:
        assert is_harmless(printed(named, "start"))
        assert is_harmless(printed(named, "sync"))
        assert is_harmless(printed(named, "logs", "-n", "100000"))
        for path in (named.root / ".assetd").rglob("*.log*"):
            assert is_harmless(path.read_bytes())
    finally:
        printed(named, "stop")


def test_the_longest_names_are_built(site: Site) -> None:
    """255 bytes: nothing that we put beside a file has a longer name than the file."""
    names = ["x" * 255, "ä" * 127 + "x", "y" * 250 + ".scss", "z" * 248 + ".concat"]
    with site.daemon() as daemon:
        for turn in ("one", "two"):
            for name in names:
                text = {"s": f"a {{ b: {turn} }}", "t": "files: [part]"}.get(name[-1], turn)
                site.write(f"assets/{name}", text)
                site.write(f"assets/{'d' * 255}/{name}", text)
            for folder in ("", "d" * 255 + "/"):
                site.write(f"assets/{folder}part", turn)
            assert daemon.sync() == []
            assert_clean(site)
        site.remove("assets/" + "d" * 255)
        daemon.sync()
        assert_clean(site)


def test_a_name_whose_output_would_be_too_long_fails_and_nothing_else_does(site: Site) -> None:
    """A source map's name is longer than its source's."""
    site.write("assetd.yml", CONFIG + "sass: {source_map: true}\n")
    site.write("assets/" + "y" * 250 + ".scss", "a { b: c }")
    site.write("assets/fine.scss", "a { b: c }")
    with site.daemon() as daemon:
        errors = daemon.sync()
        assert {e["source"] for e in errors} == {"y" * 250 + ".scss"}
        assert site.output("fine.css") is not None
        site.remove("assets/" + "y" * 250 + ".scss")
        assert daemon.sync() == []
        assert_clean(site)


def test_a_name_that_changes_its_case_only_moves_its_output(site: Site) -> None:
    """Of a file and of a folder, while it runs and while it does not."""
    site.write("assets/readme.txt", "text")
    site.write("assets/folder/a.txt", "a")
    with site.daemon() as daemon:
        (site.root / "assets/readme.txt").rename(site.root / "assets/README.txt")
        (site.root / "assets/folder").rename(site.root / "assets/Folder")
        daemon.sync()
        assert set(site.outputs()) == {"README.txt", "Folder/a.txt"}
        daemon.kill()
    (site.root / "assets/README.txt").rename(site.root / "assets/Readme.TXT")
    (site.root / "assets/Folder").rename(site.root / "assets/FOLDER")
    with site.daemon() as daemon:
        daemon.sync()
        assert set(site.outputs()) == {"Readme.TXT", "FOLDER/a.txt"}
        assert_clean(site)


def test_two_hundred_levels_of_folders_are_followed(site: Site) -> None:
    """At once or one by one, renamed at the top, and gone."""
    deep = "/".join(f"level{number}" for number in range(200))
    with site.daemon() as daemon:
        site.write(f"assets/{deep}/a.txt", "one")
        daemon.sync()
        assert site.outputs() == {f"{deep}/a.txt": b"one"}
        site.write(f"assets/{deep}/a.txt", "two")
        daemon.sync()
        assert site.outputs() == {f"{deep}/a.txt": b"two"}
        (site.root / "assets/level0").rename(site.root / "assets/top")
        moved = deep.replace("level0/", "top/", 1)
        site.write(f"assets/{moved}/b.txt", "b")
        daemon.sync()
        assert site.outputs() == {f"{moved}/a.txt": b"two", f"{moved}/b.txt": b"b"}
        site.remove("assets/top")
        daemon.sync()
        assert site.outputs() == {}
        assert list((site.root / "public").iterdir()) == []


# -- sizes and kinds ---------------------------------------------------------------------------


def peak_kib(pid: int) -> int:
    """The most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0])


def test_a_file_of_two_gibibytes_is_not_read_into_memory(site: Site) -> None:
    """Nor does a save wait for it; and it is not mistaken for a hang."""
    size = 1 << 31
    site.write("assetd.yml", CONFIG.replace("workers: 1", "workers: 2"))
    site.write("assets/small.txt", "one")
    with site.daemon() as daemon:
        before = peak_kib(daemon.process.pid)
        with open(site.root / "assets/huge.bin", "wb") as file:
            file.truncate(size)
        wait_for(lambda: daemon.status()["queue"]["running"], "the job to begin")
        site.write("assets/small.txt", "two")
        wait_for(lambda: site.output("small.txt") == "two", "a save beside it", 5.0)
        assert daemon.sync() == []
        assert (site.root / "public/huge.bin").stat().st_size == size
        workers = [worker["pid"] for worker in daemon.status()["workers"]]
        assert max(map(peak_kib, workers)) < 200 * 1024
        assert peak_kib(daemon.process.pid) < before + 20 * 1024
        os.truncate(site.root / "assets/huge.bin", 0)
        assert daemon.sync() == []
        assert (site.root / "public/huge.bin").stat().st_size == 0


def test_empty_and_sparse_files_are_built(site: Site) -> None:
    """Zero bytes are a content like any other."""
    for name in ("a.txt", "b.scss", "_p.scss", "empty.css"):
        site.write(f"assets/{name}", "")
    site.write("assets/c.scss", "@import 'p'; a { b: c }")
    site.write("assets/all.txt.concat", "files: [a.txt, empty.css]\n")
    site.write("assets/wrong.js.concat", "")
    with site.daemon() as daemon:
        assert [e["source"] for e in daemon.sync()] == ["wrong.js.concat"]
        assert site.outputs()["a.txt"] == b""
        with open(site.root / "assets/a.txt", "wb") as file:
            file.seek(100_000)
            file.write(b"end")
        daemon.sync()
        assert site.outputs()["a.txt"] == bytes(100_000) + b"end"
        os.truncate(site.root / "assets/a.txt", 0)
        daemon.sync()
        assert site.outputs()["a.txt"] == b""


def make(path: Path, kind: str) -> None:
    """Something that is no regular file."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's path is short
            try:
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(path.name)
            finally:
                os.chdir(here)
        case _:
            number = {"null": os.makedev(1, 3), "zero": os.makedev(1, 5)}[kind]
            try:
                os.mknod(path, stat.S_IFCHR | 0o600, number)
            except PermissionError:
                pytest.skip("only root makes devices")


KINDS = ("fifo", "socket", "null", "zero")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_no_source(site: Site, kind: str) -> None:
    """It comes, takes a source's name and goes; links to it are no sources either."""
    site.write("assets/a.txt", "a")
    site.write("assets/all.js.concat", "files: ['parts/*']")
    site.write("assets/parts/one", "one")
    make(site.root / "assets/before", kind)
    make(site.root / "outside", kind)
    (site.root / "assets/link.txt").symlink_to("../outside")
    with site.daemon() as daemon:
        assert daemon.sync() == []
        made = {"a.txt", "all.js", "parts/one"}
        assert set(site.outputs()) == made
        make(site.root / "assets/parts/two", kind)
        make(site.root / "assets/b.scss", kind)
        assert daemon.sync() == []
        assert set(site.outputs()) == made
        site.remove("assets/a.txt")
        make(site.root / "assets/a.txt", kind)
        assert daemon.sync() == []
        assert set(site.outputs()) == made - {"a.txt"}
        site.remove("assets/a.txt")
        site.write("assets/a.txt", "again")
        assert daemon.sync() == []
        assert site.output("a.txt") == "again"
        daemon.kill()
    site.remove("assets/a.txt")
    make(site.root / "assets/a.txt", kind)
    with site.daemon() as daemon:
        assert daemon.sync() == []
        assert set(site.outputs()) == made - {"a.txt"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_no_part_either(site: Site, kind: str) -> None:
    """An import of it fails, at once and for its own source only, until there is a file."""
    make(site.root / "assets/_p.scss", kind)
    make(site.root / "assets/part", kind)
    site.write("assets/a.scss", "@import 'p'; a { b: $c }")
    site.write("assets/all.js.concat", "files: [part]")
    site.write("assets/fine.txt", "fine")
    with site.daemon() as daemon:
        assert {e["source"] for e in daemon.sync()} == {"a.scss", "all.js.concat"}
        assert site.output("fine.txt") == "fine"
        assert daemon.status()["workers"][0]["restarts"] == 0
        for name, text in (("_p.scss", "$c: d;"), ("part", "text")):
            site.remove(f"assets/{name}")
            site.write(f"assets/{name}", text)
        assert daemon.sync() == []
        assert site.output("all.js") == "text"


@pytest.mark.parametrize("kind", KINDS)
def test_no_tool_waits_for_what_is_no_regular_file(site: Site, tools: Path, kind: str) -> None:
    """Node opens a FIFO and waits for ever, and reads a device until there is no memory left."""
    site.write(
        "assetd.yml",
        "mounts: [assets]\nworkers: 1\nprocessors: [sass, less, esbuild, copy]\n"
        "ignore: [x.js, '_q.*']\nsass: {engine: dart}\nesbuild: {bundle: true, entries: [d.ts]}\n",
    )
    parts = {"_p.scss": "$c: d;", "_q.less": "@c: d;", "x.js": "console.log(1)"}
    for part in parts:
        make(site.root / "assets" / part, kind)
    site.write("assets/a.scss", "@import 'p'; a { b: $c }")
    site.write("assets/b.less", "@import '_q'; a { b: @c }")
    site.write("assets/c.less", "@import (inline) '_q.less';")
    site.write("assets/d.ts", "import './x.js'")
    site.write("assets/fine.txt", "fine")
    with site.daemon() as daemon:
        errors = daemon.sync()
        assert {e["source"] for e in errors} == {"a.scss", "b.less", "c.less", "d.ts"}
        assert {e["processor"] for e in errors} == {"sass", "less", "esbuild"}
        assert site.output("fine.txt") == "fine"
        assert daemon.status()["workers"][0]["restarts"] == 0
        for name, text in parts.items():
            site.remove(f"assets/{name}")
            site.write(f"assets/{name}", text)
        assert daemon.sync() == []
        assert "b: d" in (site.output("b.css") or "")


# -- times -------------------------------------------------------------------------------------

TIMES = (0, 1, -1, -(10**9), -(10**18), 4 * 10**18, 2**62)
"""In nanoseconds: before and at the epoch, and far ahead."""


def set_time(path: Path, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns))


@pytest.mark.parametrize("running", [True, False])
def test_a_change_counts_whatever_its_time_says(site: Site, *, running: bool) -> None:
    """No time is compared by order, and equal ones prove nothing alone."""
    names = [f"{number}.txt" for number in range(len(TIMES))]
    parts = [f"_{number}.scss" for number in range(len(TIMES))]
    for name, mtime_ns in zip(names, TIMES, strict=True):
        site.write(f"assets/{name}", "one")
        set_time(site.root / "assets" / name, mtime_ns)
    for number, (part, mtime_ns) in enumerate(zip(parts, TIMES, strict=True)):
        site.write(f"assets/{part}", "$c: one;")
        set_time(site.root / "assets" / part, mtime_ns)
        site.write(f"assets/s{number}.scss", f"@import '{number}'; a {{ b: $c }}")
    daemon = Daemon(site)
    try:
        daemon.wait_until_ready()
        for turn, word in enumerate(("two", "six", "ten")):
            daemon.sync()
            if not running:
                daemon.kill()
            for name, mtime_ns in zip((*names, *parts), TIMES * 2, strict=True):
                path = site.root / "assets" / name
                text = word if name.endswith("txt") else f"$c: {word};"
                if turn == 1:  # by rename
                    site.replace(f"assets/{name}", text)
                else:
                    site.write(f"assets/{name}", text)
                set_time(path, mtime_ns)
            if not running:
                daemon = Daemon(site)
                daemon.wait_until_ready()
            assert daemon.sync() == []
            assert {site.output(name) for name in names} == {word}
            assert all(word in (site.output(f"s{n}.css") or "") for n in range(len(TIMES)))
        assert_clean(site)
    finally:
        daemon.end()


def test_a_time_that_jumps_back_and_forth_rebuilds_nothing(site: Site) -> None:
    """The content decides; a time alone is no change."""
    site.write("assets/a.txt", "text")
    site.write("assets/a.scss", "a { b: c }")
    with site.daemon() as daemon:
        daemon.sync()
        batch = daemon.status()["last_batch"]["id"]
        for mtime_ns in TIMES:
            for name in ("a.txt", "a.scss"):
                set_time(site.root / "assets" / name, mtime_ns)
            daemon.sync()
        assert daemon.status()["last_batch"]["id"] == batch
    with site.daemon() as daemon:
        daemon.sync()
        assert daemon.status()["last_batch"]["id"] == batch


def test_a_forged_file_is_found(site: Site) -> None:
    """As large as before, with the time that it had: the time of its change tells."""
    site.write("assets/a.txt", "one")
    site.write("assets/_p.scss", "$c: one;")
    site.write("assets/a.scss", "@import 'p'; a { b: $c }")
    with site.daemon() as daemon:
        for word in ("two", "six"):
            for name in ("a.txt", "_p.scss"):
                path = site.root / "assets" / name
                before = path.stat()
                path.write_text(path.read_text().replace("one", word).replace("two", word))
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
                after = path.stat()
                assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
            assert daemon.sync() == []
            assert site.output("a.txt") == word
            assert word in (site.output("a.css") or "")
        daemon.kill()
    path = site.root / "assets/a.txt"
    before = path.stat()
    path.write_text("ten")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with site.daemon() as daemon:
        assert daemon.sync() == []
        assert site.output("a.txt") == "ten"


@pytest.mark.parametrize("jumps", [("+1d", "-2d"), ("-1h", "+30d")], ids=["ahead", "back"])
def test_a_clock_that_jumps_while_the_daemon_runs_loses_nothing(
    site: Site, jumps: Sequence[str]
) -> None:
    """Its own view of the clock does, and the times of files do not: worse than a machine's."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    clock = site.write("clock", "+0")
    site.write("assets/_part.scss", "$c: 0;")
    site.write("assets/page.scss", '@import "part"; a { b: $c; }')
    fake = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": clock,
        "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
    }
    through = ("env", *(f"{name}={value}" for name, value in fake.items()))
    hours = set()
    with site.daemon(through=through) as daemon:
        for number, jump in enumerate((*jumps, "+0")):
            site.replace("clock", jump)
            site.write("assets/_part.scss", f"$c: {number + 1};")
            site.write(f"assets/new-{number}.txt", f"{number}")
            assert daemon.sync() == []
            assert_clean(site)
            site.remove(f"assets/new-{number}.txt")
            assert daemon.sync() == []
            assert_clean(site)
            hours.add(daemon.status()["last_batch"]["finished_at"][:13])
    assert len(hours) == 3, "the clock of the daemon did not jump"
