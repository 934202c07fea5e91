"""Other people's processors: found in both ways, kept apart, and blamed by name."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from assetd import strays
from assetd.retries import CRASH_LIMIT
from assetd.testing import Site, wait_for

PLUGIN: Final = """
from assetd.processor import FIRST, Names, Option, Processor, same_name, suffix

def process(step):
    step.write(step.path, f"{step.options['text']}:{step.input.read_text()}")

banner = Processor(
    name="banner", version="1", matches=suffix(".txt"), outputs=same_name, process=process,
    options=(Option("text", str, "one", "What stands on top."),), ends=True,
)
"""


def plugin(process: str, **fields: str) -> str:
    """The text of a plugin `odd` that takes `.odd` files, with *process* as its body."""
    given = {"matches": 'suffix(".odd")', "outputs": "same_name", "process": "process"} | fields
    arguments = ", ".join(f"{name}={value}" for name, value in given.items())
    body = "\n".join(f"    {line}" for line in process.splitlines())
    return (
        "import os, sys, time\n"
        "from assetd.processor import Names, Option, Processor, same_name, suffix\n"
        f"def process(step):\n{body}\n"
        f'odd = Processor(name="odd", version="1", {arguments})\n'
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def with_plugin(site: Site, text: str, more: str = "") -> None:
    site.write("tools/odd.py", text)
    site.write("assetd.yml", f"mounts: [assets]\nplugins: [tools/odd.py]\nworkers: 1\n{more}")


# Found


def test_a_plugin_is_found_by_its_path(site: Site) -> None:
    """With the options of its section."""
    site.write("assetd.yml", "mounts: [assets]\nplugins: [tools/p.py]\nbanner: {text: two}\n")
    site.write("tools/p.py", PLUGIN)
    site.write("assets/a.txt", "a")
    site.build()
    assert site.output("a.txt") == "two:a"


def test_a_plugin_is_found_by_its_entry_point(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that we ship are: an installed package is all it takes."""
    packages = tmp_path / "packages"
    info = packages / "lantern_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (packages / "lantern_tools.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lantern-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[assetd.processors]\nbanner = lantern_tools:banner\n")
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    site.write("assets/a.txt", "a")
    site.build()
    assert site.output("a.txt") == "one:a"


# Edited


def test_an_edited_plugin_dirties_just_what_it_made(site: Site) -> None:
    """While the daemon runs, and with a new generation of workers."""
    site.write("assetd.yml", "mounts: [assets]\nplugins: [tools/p.py, tools/q.py]\n")
    site.write("tools/p.py", PLUGIN)
    site.write("tools/q.py", PLUGIN.replace("banner", "other").replace(".txt", ".md"))
    for name in ("a.txt", "b.txt", "c.md", "d.css"):
        site.write(f"assets/{name}", name)
    with site.daemon() as daemon:
        generation = daemon.status()["workers"][0]["generation"]
        site.write("tools/p.py", PLUGIN.replace("{step.options['text']}:", "new:"))
        assert daemon.sync() == []
        assert site.outputs() == {
            "a.txt": b"new:a.txt",
            "b.txt": b"new:b.txt",
            "c.md": b"one:c.md",
            "d.css": b"d.css",
        }
        status = daemon.status()
        assert (status["last_batch"]["changed"], status["last_batch"]["built"]) == (2, 2)
        assert status["workers"][0]["generation"] == generation + 1
        site.write("tools/p.py", "(")  # an editor in the middle of something
        wait_for(lambda: daemon.status()["config_errors"], "the refusal")
        site.write("tools/p.py", PLUGIN)
        assert daemon.sync() == []
        assert site.output("a.txt") == "one:a.txt"


# Misbehaving

NAMES: Final = "lambda path, options: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (plugin("{}['gone']"), "odd raised KeyError: 'gone'"),
        (plugin("raise OSError(5, 'no luck')"), "odd: [Errno 5] no luck"),
        (plugin("os._exit(7)"), "exited with code 7 in odd, twice"),
        (plugin("sys.exit('bye')"), "in odd, twice"),
        (plugin("os.kill(os.getpid(), 11)"), "was killed by SIGSEGV in odd, twice"),
        (
            plugin("time.sleep(60)", timeout_seconds="1.0"),
            "showed no progress for 1 s and was killed in odd, twice",
        ),
        (plugin("while True: pass", timeout_seconds="1.0"), "for 1 s and was killed in odd, twice"),
        (plugin("raise KeyboardInterrupt"), "in odd, twice"),
        (plugin("step.write('../evil', 'x')"), "odd makes '../evil', but announced a.odd"),
        (
            plugin("step.write('../evil', 'x')", bypass="True"),
            "odd makes '../evil', no path below the output root",
        ),
        (
            plugin("step.write('/tmp/evil', 'x')", bypass="True"),
            "odd makes '/tmp/evil', no path below the output root",
        ),
        (
            plugin("os.symlink('/etc/passwd', step.output(step.path))"),
            "odd made a link of a.odd: expected a file",
        ),
        (plugin("os.mkdir(step.output(step.path))"), "odd"),
        (plugin("os.mkfifo(step.output(step.path))"), "odd"),
        (plugin("return 'nonsense'"), "odd announced a.odd and did not make it"),
        (plugin("step.write(step.path, 42)"), "odd raised TypeError"),
        (plugin("step.write(step.path, '\\udc80')"), "odd raised UnicodeEncodeError"),
        (plugin("step.depends('a\\0b'); step.write(step.path, '')"), "odd"),
        (plugin("step.depends(42)"), "odd raised TypeError"),
        (plugin("raise step.fail(42, line='x')"), "42"),
        (plugin("pass", outputs=f"{NAMES}Names(('../x',))"), "odd would make '../x'"),
        (plugin("pass", outputs=f"{NAMES}'nonsense'"), "odd: outputs('a.odd') raised"),
        (plugin("pass", outputs=f"{NAMES}Names(())"), "odd announces (): expected different"),
        (plugin("pass", outputs=f"{NAMES}{{}}[0]"), "odd: outputs('a.odd') raised KeyError: 0"),
        (
            plugin("pass", matches=f"{NAMES}path.endswith('.odd') and 1 / 0"),
            "odd: matches('a.odd')",
        ),
    ],
)
def test_a_plugin_that_misbehaves_fails_its_own_sources(
    site: Site, text: str, message: str
) -> None:
    """The message names it, everything else is built, and nothing is written elsewhere."""
    with_plugin(site, text)
    site.write("assets/a.odd", "x")
    for number in range(20):
        site.write(f"assets/{number}.css", "a {}")
    answer = site.build()
    (error,) = answer["errors"]
    assert error["source"] == "a.odd"
    assert message in f"{error['processor']} {error['message']}"
    assert site.outputs() == {f"{number}.css": b"a {}" for number in range(20)}
    outside = {p.name for p in site.root.iterdir()} | {p.name for p in site.root.parent.iterdir()}
    assert "evil" not in outside
    assert not Path("/tmp/evil").exists()


def test_a_plugin_that_hangs_in_a_daemon_is_ended_and_the_fix_heals(site: Site) -> None:
    """The last good output stays meanwhile."""
    good = plugin("step.write(step.path, 'good')", timeout_seconds="1.0")
    with_plugin(site, good)
    site.write("assets/a.odd", "x")
    with site.daemon() as daemon:
        site.write("tools/odd.py", plugin("time.sleep(600)", timeout_seconds="1.0"))
        (error,) = daemon.sync()
        assert "odd" in error["message"]
        assert "1 s" in error["message"]
        assert site.output("a.odd") == "good"
        site.write("tools/odd.py", good.replace("'good'", "'better'"))
        assert daemon.sync() == []
        assert site.output("a.odd") == "better"


def test_what_a_plugin_prints_is_no_protocol(site: Site) -> None:
    """Neither is what it closes."""
    with_plugin(
        site,
        plugin(
            "print('{\"jobs\": []}', flush=True)\nos.write(1, b'\\0' * 9999)\n"
            "step.write(step.path, 'fine')"
        ),
    )
    site.write("assets/a.odd", "x")
    assert site.build()["errors"] == []
    assert site.output("a.odd") == "fine"


def test_a_plugin_may_change_its_folder_without_others_noticing(site: Site) -> None:
    """A worker is shared."""
    with_plugin(site, plugin("os.chdir('/'); step.write(step.path, 'fine')"))
    site.write("assets/a.odd", "x")
    site.write("assets/b.scss", "a { b: c }")
    answer: dict[str, Any] = site.build()
    assert answer["errors"] == []
    assert set(site.outputs()) == {"a.odd", "b.css"}


def test_an_input_that_costs_workers_again_and_again_is_left_alone(site: Site) -> None:
    """SIGKILL may have come from outside, so it is tried again; but not for ever."""
    with_plugin(
        site, plugin("os.kill(os.getpid(), 9) if 'bad' in step.input.read_text() else step.copy()")
    )
    site.write("assets/a.odd", "bad")
    site.write("assets/b.odd", "good")
    with site.daemon() as daemon:
        wait_for(
            lambda: "left alone until it changes" in str(daemon.status()["errors"]),
            "the last try",
        )
        assert daemon.log.count("worker_died") == 2 * CRASH_LIMIT
        assert site.output("b.odd") == "good"
        site.write("assets/c.odd", "good")  # others go on, and do not bring it back
        assert len(daemon.sync()) == 1
        assert daemon.log.count("worker_died") == 2 * CRASH_LIMIT
        site.write("assets/a.odd", "mended")
        assert daemon.sync() == []
        assert site.output("a.odd") == "mended"


@pytest.mark.parametrize(
    "deed",
    [
        "os.fork() or os._exit(0)",
        "os.fork() or (os.setsid(), time.sleep(600))",
        "[os.fork() or time.sleep(600) for _ in range(3)]",
        "os.closerange(3, 4096)",
        "os.close(1); os.close(2)",
        "[os.write(1, b'x' * 65536) for _ in range(64)]",
        "sys.stdout.write('\\x1b[2J\\n' * 100_000)",
        "os.setpgid(0, 0) if os.getpgrp() != os.getpid() else None",
        "__import__('threading').Thread(target=time.sleep, args=(600,)).start()",
        "__import__('signal').signal(15, 1)",
    ],
)
def test_whatever_a_plugin_does_to_its_worker_nobody_else_notices(site: Site, deed: str) -> None:
    """Its own source is built or fails; the others are built, and the daemon ends in time."""
    with_plugin(site, plugin(f"{deed}\nstep.copy()"))
    site.write("assets/a.odd", "x")
    for number in range(20):
        site.write(f"assets/{number}.css", "a {}")
    with site.daemon() as daemon:
        errors = daemon.sync()
        assert {error["source"] for error in errors} <= {"a.odd"}
        assert {f"{number}.css" for number in range(20)} <= set(site.outputs())
        site.write("assets/0.css", "b {}")
        daemon.sync()
        assert site.output("0.css") == "b {}"
        assert "\x1b[2J" not in daemon.log


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_left_its_workers_group_is_ended_all_the_same(site: Site, end: str) -> None:
    """With the daemon, or where that was killed, by the next one."""
    with_plugin(
        site,
        plugin(
            "made = step.output(step.path)\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        made.with_suffix('.new').write_text(str(os.getpid()))\n"
            "        os.rename(made.with_suffix('.new'), made)\n"
            "        time.sleep(600)\n"
            "    os._exit(0)\n"
            "while not made.exists():\n"
            "    time.sleep(0.01)"
        ),
    )
    site.write("assets/a.odd", "x")
    with site.daemon() as daemon:
        assert daemon.sync() == []
        stray = int(site.output("a.odd") or "0")
        assert alive(stray)
        if end == "kill":
            daemon.kill()
            assert alive(stray)
            site.build()
    wait_for(lambda: not alive(stray), "the stray to be ended")


def test_what_is_killed_already_is_no_stray() -> None:
    """A compiler with much memory is there for a while after its group was killed."""
    mark = f"test-{os.getpid()}"
    environment = {**os.environ, strays.MARK: mark}
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, process_group=0
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert strays.end(mark, [], killed=[process.pid]) == []
        assert process.poll() is None
        assert strays.end(mark, []) == [process.pid]
        assert process.wait() == -signal.SIGKILL
