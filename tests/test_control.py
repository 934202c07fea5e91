"""The control socket under attack: each client gets an answer or is hung up on, the rest go on."""

import contextlib
import json
import os
import random
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assetd import client
from assetd.control import CLIENT_LIMIT, REQUEST_LIMIT
from assetd.errors import AssetdError
from assetd.testing import Daemon, Site, wait_for

SOON_SECONDS = 1.0
CLIENTS = int(os.environ.get("ASSETD_TEST_CLIENTS", "100"))


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    site = Site(tmp_path_factory.mktemp("control") / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/a.txt", "a")
    with site.daemon() as found:
        yield found


@pytest.fixture
def daemon(victim: Daemon) -> Daemon:
    """One daemon for all attacks: it has to live through each."""
    assert victim.process.poll() is None, victim.log
    assert "Traceback" not in victim.log
    wait_for(lambda: soon(victim)["state"] == "idle", "the daemon to be idle")
    return victim


def path_of(daemon: Daemon) -> str:
    root = os.path.realpath(daemon.site.root)
    return client.socket_path(root, os.path.join(root, ".assetd"))


def raw(daemon: Daemon) -> socket.socket:
    """A connection that says what it likes."""
    door = socket.socket(socket.AF_UNIX)
    door.settimeout(20.0)
    try:
        with client.address(path_of(daemon)) as where:
            door.connect(where)
    except OSError:
        door.close()
        raise
    return door


def soon(daemon: Daemon) -> dict[str, Any]:
    """The status, which must come quickly whatever others do."""
    began = time.monotonic()
    status = daemon.status()
    assert time.monotonic() - began < SOON_SECONDS
    return status


def lines(door: socket.socket, count: int) -> list[dict[str, Any]]:
    """The next replies."""
    with door.makefile("rb") as file:
        return [json.loads(file.readline()) for _ in range(count)]


def hung_up(door: socket.socket) -> bool:
    """Whether the daemon has closed the connection; reads what there is before."""
    try:
        while door.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


NONSENSE = {
    "nothing": (b"", "no JSON"),
    "no JSON": (b"GET / HTTP/1.1\r", "no JSON"),
    "not UTF-8": (b'{"do": "\xff\xfe"}', "no JSON"),
    "a list": (b"[1, 2]", "expected a JSON object"),
    "null": (b"null", "expected a JSON object"),
    "too deep": (b"[" * 100_000, "no JSON"),
    "too long a number": (b"1" * 100_000, "no JSON"),
    "another version": (b'{"v": 99, "do": "status"}', "protocol version 99: expected 1"),
    "a version that is a list": (b'{"v": [1], "do": "status"}', "protocol version [1]"),
    "unknown": (b'{"do": "shutdown"}', "unknown request 'shutdown'"),
    "no request": (b"{}", "unknown request None"),
    "request of another type": (b'{"do": {"status": 1}}', "unknown request"),
    "paths that are none": (b'{"do": "build", "paths": "a"}', 'expected "paths"'),
    "paths of numbers": (b'{"do": "build", "paths": [1]}', 'expected "paths"'),
    "half a surrogate": (b'{"do": "build", "paths": ["\\ud800"]}', 'expected "paths"'),
    "a NUL in a path": (b'{"do": "build", "paths": ["a\\u0000b"]}', 'expected "paths"'),
    "force that is no bool": (b'{"do": "build", "force": 1}', 'expected "paths"'),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_with_a_reason(daemon: Daemon, what: str) -> None:
    """And the connection is good for a request that makes sense."""
    sent, why = NONSENSE[what]
    with raw(daemon) as door:
        door.sendall(sent + b"\n" + b'{"do": "status"}\n')
        refused, status = lines(door, 2)
    assert not refused["ok"]
    assert refused["error"].startswith(why)
    assert status["data"]["state"] == "idle"


def test_random_bytes_end_nothing(daemon: Daemon) -> None:
    """Whatever they look like."""
    seed = int(os.environ.get("ASSETD_TEST_SEED", random.randrange(1 << 32)))
    print(f"ASSETD_TEST_SEED={seed}")
    dice = random.Random(seed)
    valid = b'{"v": 1, "do": "build", "paths": ["assets"], "force": false}'
    for _ in range(300):
        content = bytearray(valid if dice.random() < 0.7 else dice.randbytes(50))
        for _ in range(dice.randrange(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        with raw(daemon) as door:
            door.sendall(content + b"\n")
            if dice.random() < 0.5:
                assert lines(door, 1)
    soon(daemon)


def test_a_request_without_an_end_is_cut_off(daemon: Daemon) -> None:
    """It would fill our memory."""
    with raw(daemon) as door:
        with contextlib.suppress(ConnectionError):
            for _ in range(4 * REQUEST_LIMIT // 65536):
                door.sendall(b"x" * 65536)
                soon(daemon)
        with contextlib.suppress(ConnectionError):
            assert "more than 1048576 bytes" in door.recv(1 << 16).decode()
        assert hung_up(door)


def test_a_client_that_sends_byte_by_byte_is_served(daemon: Daemon) -> None:
    """Slowly, and nobody waits for it."""
    with raw(daemon) as door:
        for byte in b'{"do": "status"}\n':
            door.sendall(bytes([byte]))
            soon(daemon)
        assert lines(door, 1)[0]["ok"]


def test_a_client_that_asks_and_vanishes_leaves_nothing_behind(daemon: Daemon) -> None:
    """Before, while and after its answer is made."""

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    before = descriptors()
    for request in (
        b"",
        b'{"do"',
        b'{"do": "sync"}\n',
        b'{"do": "build"}\n',
        b'{"do": "status"}\n',
    ):
        for _ in range(20):
            with raw(daemon) as door:
                door.sendall(request)
    assert daemon.sync() == []
    wait_for(lambda: descriptors() <= before, "the descriptors to be closed")


def test_a_client_that_never_reads_holds_up_only_itself(daemon: Daemon) -> None:
    """Its answers are not made before it takes the last one: our memory stays bounded."""

    def memory() -> int:
        text = Path(f"/proc/{daemon.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGESIZE")

    soon(daemon)
    before = memory()
    with raw(daemon) as door:
        door.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            try:
                sent += door.send(b'{"do": "status"}\n' * 1000)
            except BlockingIOError:
                soon(daemon)
            except ConnectionError:
                break  # it sent more than a request may have, unread
    assert sent > 100_000
    assert memory() - before < 20 << 20


def test_a_client_that_asks_without_end_holds_up_nobody(daemon: Daemon) -> None:
    """One request of it a turn."""
    ended = threading.Event()

    def flood() -> None:
        with raw(daemon) as door:
            while not ended.is_set():
                door.sendall(b'{"do": "status"}\n' * 50)
                lines(door, 50)

    floods = [threading.Thread(target=flood) for _ in range(3)]
    for each in floods:
        each.start()
    try:
        for n in range(20):
            soon(daemon)
            daemon.site.write("assets/b.txt", str(n))
            assert daemon.sync() == []
            assert daemon.site.output("b.txt") == str(n)
    finally:
        ended.set()
        for each in floods:
            each.join()


def test_two_hundred_clients_at_once_are_all_served(daemon: Daemon) -> None:
    """Whatever they ask for."""
    doors = [raw(daemon) for _ in range(200)]
    requests = [b'{"do": "status"}\n', b'{"do": "sync"}\n', b'{"do": "build"}\n', b"rubbish\n"]
    for n, door in enumerate(doors):
        door.sendall(requests[n % 4])
    began = time.monotonic()
    for n, door in enumerate(doors):
        assert lines(door, 1)[0]["ok"] is (n % 4 != 3)
    assert time.monotonic() - began < 20.0
    for door in doors:
        door.close()


def test_the_loop_is_never_held_up_by_clients(daemon: Daemon) -> None:
    """Many ask at once, flood, send half of something, vanish; a turn goes on with others."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most[1], most[1]))
    requests = (
        *(b'{"do": "status"}\n', b'{"do": "sync"}\n', b'{"do": "build"}\n', b"rubbish\n"),
        *(b'{"do": "sta', b'{"do": "status"}\n' * 20, b'{"do": "metrics"}\n', b"x" * 70_000),
    )
    ended = threading.Event()

    def crowd() -> None:
        turn = 0
        while not ended.is_set():
            doors = []
            for n in range(CLIENTS):
                with contextlib.suppress(OSError, AssetdError):
                    door = raw(daemon)
                    door.setblocking(False)
                    doors.append(door)
                    door.send(requests[(n + turn) % len(requests)])
            turn += 1
            for n, door in enumerate(doors):
                if n % 3:
                    with contextlib.suppress(OSError):
                        door.settimeout(0.02)
                        door.recv(1 << 16)
                door.close()

    people = threading.Thread(target=crowd)
    times = []
    with raw(daemon) as door:
        people.start()
        try:
            for _ in range(CLIENTS * 2):
                began = time.monotonic()
                door.sendall(b'{"do": "nothing"}\n')
                lines(door, 1)
                times.append(time.monotonic() - began)
        finally:
            ended.set()
            people.join()
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
    times.sort()
    p50, p99 = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{CLIENTS:,} clients at once: an answer takes p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    if CLIENTS >= 1000:
        assert p99 < 50.0
    wait_for(lambda: soon(daemon)["state"] == "idle", "the daemon to be idle")


def test_more_clients_than_we_serve_are_hung_up_on(daemon: Daemon) -> None:
    """Descriptors are left for our own work, and the next is served when some have gone."""
    doors = []
    with contextlib.suppress(OSError):
        for _ in range(min(CLIENT_LIMIT + 50, _descriptors_of_ours())):
            doors.append(raw(daemon))  # noqa: PERF401 - those before the first refusal count
    daemon.site.write("assets/a.txt", "while full")
    wait_for(lambda: daemon.site.output("a.txt") == "while full", "the edit to be built")
    for door in doors:
        door.close()
    wait_for(lambda: _served(daemon), "a client to be served again")


def _descriptors_of_ours() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100


def _served(daemon: Daemon) -> bool:
    with contextlib.suppress(AssetdError):
        return bool(daemon.status())
    return False


def test_fifty_bad_clients_change_nothing_for_the_next(daemon: Daemon) -> None:
    """Slow readers, half requests, rubbish, and subscribers that sleep."""
    bad = (
        b'{"do": "status"}\n' * 2_000,
        b'{"do": "sta',
        b"\0\xff" * 5_000 + b"\n",
        b'{"do": "subscribe"}\n',
        b'{"do": "sync"}\n' * 100,
    )
    doors = [raw(daemon) for _ in range(50)]
    for n, door in enumerate(doors):
        door.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            door.send(bad[n % len(bad)])
    for n in range(20):
        began = time.monotonic()
        soon(daemon)
        daemon.site.write("assets/c.txt", str(n))
        assert daemon.sync() == []
        assert daemon.site.output("c.txt") == str(n)
        assert time.monotonic() - began < SOON_SECONDS
    for door in doors:
        door.close()


# -- subscribers ------------------------------------------------------------------------------


def test_a_slow_subscriber_is_told_how_much_it_missed(tmp_path: Path) -> None:
    """And where: what it gets and what it missed make up all that happened, in order."""
    site = Site(tmp_path, "mounts: [assets]\nworkers: 1\n")
    edits = 60
    with site.daemon() as daemon, raw(daemon) as slow, raw(daemon) as quick:
        for door in (slow, quick):
            door.sendall(b'{"do": "subscribe", "events": ["failed"]}\n')
        fast = quick.makefile("rb")
        assert json.loads(fast.readline()) == {"ok": True, "data": {}}
        for n in range(edits):
            site.write("assets/a.scss", f'@error "{n} {"x" * 60_000}";')
            assert len(daemon.sync()) == 1
            assert f"{n} xxx" in json.loads(fast.readline())["message"]
        with slow.makefile("rb") as late:
            assert json.loads(late.readline())["ok"]
            heard = []
            while (event := json.loads(late.readline()))["event"] != "missed":
                heard.append(int(event["message"].partition(" xxx")[0].rpartition(" ")[2]))
            assert heard == list(range(len(heard)))
            assert len(heard) + event["count"] == edits
            assert event["count"] > 10
            site.write("assets/a.scss", "@error once more;")
            assert "once more" in json.loads(late.readline())["message"]
        fast.close()


def test_what_is_subscribed_to_is_checked(daemon: Daemon) -> None:
    """A subscription to nonsense is refused, not taken for everything."""
    with raw(daemon) as door:
        door.sendall(b'{"do": "subscribe", "events": "batch"}\n{"do": "status", "recent": -1}\n')
        for refused, told in zip(lines(door, 2), ('"events"', '"recent"'), strict=True):
            assert not refused["ok"]
            assert told in refused["error"]


def test_a_status_may_tell_of_recent_batches(daemon: Daemon) -> None:
    """With their reasons and the times of saves, for whoever draws a live view."""
    daemon.site.write("assets/a.txt", f"{time.monotonic_ns()}")
    daemon.sync()
    status = daemon.ask("status", recent=3)
    assert len(status["recent"]) <= 3
    assert status["recent"][0]["reasons"][0]["source"] == "assets/a.txt"
    assert status["recent"][0]["reasons"][0]["cause"] == "source-changed"
    assert len(status["saves_ms"]) >= 1
    assert "recent" not in daemon.status()


def test_every_request_of_a_client_is_answered_in_its_order(daemon: Daemon) -> None:
    """Also those that it sent before it read."""
    with raw(daemon) as door:
        door.sendall(b'{"do": "sync"}\n{"do": "status"}\n{"do": "nope"}\n{"do": "build"}\n')
        answers = lines(door, 4)
    assert [a["ok"] for a in answers] == [True, True, False, True]
    assert "seconds" in answers[0]["data"]
    assert "state" in answers[1]["data"]
    assert "outputs" in answers[3]["data"]


def test_the_daemon_lives_after_all_that(daemon: Daemon) -> None:
    """The fixture has asked it."""


# -- where it is ------------------------------------------------------------------------------


def private(path: str) -> tuple[int, int]:
    """The permissions of the socket and of its folder."""
    return (
        stat.S_IMODE(os.stat(path).st_mode),
        stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode),
    )


def test_the_socket_is_for_us_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the state folder, even if that was there already and open to others."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    site = Site(tmp_path / "site")
    (site.root / ".assetd").mkdir(mode=0o755)
    os.chmod(site.root / ".assetd", 0o777)
    with site.daemon() as daemon:
        assert path_of(daemon) == str(site.root / ".assetd/control.sock")
        assert private(path_of(daemon)) == (0o600, 0o700)
    assert not os.path.exists(site.root / ".assetd/control.sock")


def test_the_runtime_folder_of_the_session_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket of its own for each project there."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    one, two = Site(tmp_path / "one"), Site(tmp_path / "two")
    with one.daemon() as first, two.daemon() as second:
        assert path_of(first) != path_of(second)
        for daemon in (first, second):
            assert Path(path_of(daemon)).parent == runtime / "assetd"
            assert private(path_of(daemon)) == (0o600, 0o700)
            assert daemon.status()["project"] == str(daemon.site.root)
        assert json.loads(one.run("status", "--json").stdout)["project"] == str(one.root)


STRANGER = """
import os, socket, sys
fd = os.open(sys.argv[1], os.O_PATH)
os.setresuid(65534, 65534, 65534)
door = socket.socket(socket.AF_UNIX)
try:
    door.connect(f"/proc/self/fd/{fd}/{sys.argv[2]}")
    door.sendall(b'{"do": "stop"}\\n')
    print("answered" if door.recv(100) else "hung up on")
except ConnectionError:
    print("hung up on")
except PermissionError:
    print("kept out")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_another_user_is_kept_out_and_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the permissions; and if somebody has opened those, by who it is."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    site = Site(tmp_path / "site")

    def stranger(daemon: Daemon) -> str:
        folder, name = os.path.split(path_of(daemon))
        command = [sys.executable, "-I", "-c", STRANGER, folder, name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with site.daemon() as daemon:
        assert stranger(daemon) == "kept out"
        os.chmod(os.path.dirname(path_of(daemon)), 0o777)
        assert stranger(daemon) == "kept out"
        os.chmod(path_of(daemon), 0o666)
        assert stranger(daemon) == "hung up on"
        assert daemon.status()["state"] == "idle"


def test_a_project_in_a_very_deep_folder_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes 107 bytes for the name of a socket; folders go deeper."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    root = tmp_path / ("long" * 25) / ("longer" * 20) / "site"
    root.mkdir(parents=True)
    site = Site(root)
    site.write("assets/a.txt", "a")
    with site.daemon() as daemon:
        assert len(path_of(daemon)) > 200
        assert daemon.sync() == []
        assert json.loads(site.run("status", "--json").stdout)["outputs"] == 1


def test_a_socket_that_a_kill_left_behind_is_replaced(tmp_path: Path) -> None:
    """Nobody has to remove it; and until then nobody is running."""
    site = Site(tmp_path / "site")
    with site.daemon() as daemon:
        daemon.kill()
        assert os.path.exists(path_of(daemon))
        assert site.run("status").returncode == 3
    with site.daemon() as daemon:
        assert daemon.status()["state"] == "idle"
