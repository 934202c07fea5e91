"""The control socket's end in the daemon: one JSON object a line, asked and answered.

Runs on the owner's loop and never blocks it: a client that reads slowly has a bounded buffer, one
that sends too much or rubbish is told so and hung up on.  Only processes of our own user are
listened to.  `docs/control-protocol.md` is the protocol, for whoever writes a client.
"""

import contextlib
import json
import os
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from assetd import client, metrics, report
from assetd.engine import Engine, Order
from assetd.errors import AlreadyRunningError

REQUEST_LIMIT: Final = 1 << 20
"""Bytes of one request."""
REPLY_LIMIT: Final = 64 << 20
"""Bytes that may wait for a client that does not read."""
EVENTS_LIMIT: Final = 1 << 20
"""Bytes of events that may wait for a subscriber; what comes on top is counted, and left out."""
CLIENT_LIMIT: Final = 1_200
RECENT_LIMIT: Final = 100
"""Batches that a status tells of at the most."""
BACKLOG: Final = 4096
"""Clients that may wait to be accepted: a burst must not pass for no daemon at all."""
TURN_SECONDS: Final = 0.01
"""What all clients together may take of a turn of the loop."""
SPARE_DESCRIPTORS: Final = 200
"""Left for everything else that we open."""
_PEER: Final = struct.Struct("=iii")


class _RefusedError(Exception):
    """What was asked makes no sense; the text goes back."""


@dataclass(slots=True, eq=False)
class _Client:
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    waiting: bool = False
    """It has asked and has no answer yet; its next request waits until then."""
    closing: bool = False
    events: frozenset[str] | None = None
    """The names of those that it has subscribed to, none for all; None: it has not."""
    missed: int = 0
    """Events that it was too slow for, and has not been told of yet."""


class Control:
    """Clients and their requests."""

    def __init__(
        self,
        engine: Engine,
        path: str,
        stop: Callable[[], None],
        counts: metrics.Counts | None = None,
    ) -> None:
        """Listen at *path*, whose project's lock we hold.

        Args:
            engine: Whom the requests are for.
            path: Of the socket; an old one is replaced.
            stop: Called when a client asks us to end.
            counts: For the metrics; without them only what is so now is told.
        """
        self._engine = engine
        self._stop = stop
        self._counts = counts or metrics.Counts()
        self._path = path
        self._clients: set[_Client] = set()
        self._turn = -1
        self._until = 0.0
        """When the clients have had their share of this turn."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = CLIENT_LIMIT + SPARE_DESCRIPTORS
        if soft < wanted:
            soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self._limit = min(CLIENT_LIMIT, max(8, soft - SPARE_DESCRIPTORS))
        folder = os.path.dirname(path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.stat(folder)
        if found.st_uid != os.geteuid():
            raise AlreadyRunningError(f"{folder} is another user's: remove it, or ask its owner")
        if found.st_mode & 0o077:
            os.chmod(folder, 0o700)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        before = os.umask(0o177)
        try:
            with client.address(path) as where:
                self._listener.bind(where)
        finally:
            os.umask(before)
        self._listener.listen(BACKLOG)
        engine.selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Hang up on everybody; what waits to be read is sent as far as it goes at once."""
        for each in list(self._clients):
            self._flush(each)
            self._hang_up(each)
        self._engine.selector.unregister(self._listener)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def hear(self, event: str, *, level: str = "info", **fields: object) -> None:
        """Pass an event on to those who have subscribed to it."""
        line = b""
        for each in list(self._clients):
            if each.events is None or (each.events and event not in each.events):
                continue
            line = line or _line(report.event(event, level, fields))
            if each.missed or len(each.unsent) + len(line) > EVENTS_LIMIT:
                each.missed += 1  # until it has read what waits: no gap goes untold
                continue
            each.unsent += line
            self._flush(each)

    def _accept(self, _mask: int) -> None:
        for _ in range(32):
            try:
                door, _ = self._listener.accept()
            except OSError:
                return
            raw = door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            _, uid, _ = _PEER.unpack(raw)
            if uid not in {os.geteuid(), 0} or len(self._clients) >= self._limit:
                door.close()
                continue
            door.setblocking(False)
            each = _Client(door)
            self._clients.add(each)
            self._engine.selector.register(
                door, selectors.EVENT_READ, lambda mask, c=each: self._on_client(c, mask)
            )
            # Its request is mostly there already: it need not wait for another turn of the loop.
            self._on_client(each, selectors.EVENT_READ)

    def _on_client(self, each: _Client, mask: int) -> None:
        if each not in self._clients:
            return  # hung up on by a callback of this very turn
        now = time.monotonic()
        if self._turn != self._engine.turns:
            self._turn, self._until = self._engine.turns, now + TURN_SECONDS
        if now > self._until:
            return  # a save must not wait for a thousand answers: the selector tells us again
        if mask & selectors.EVENT_READ and not self._receive(each):
            self._hang_up(each)
            return
        if mask & selectors.EVENT_WRITE:
            self._flush(each)
        if len(each.received) > REQUEST_LIMIT:
            each.closing = True
            each.received.clear()
            self._fail(each, f"a request of more than {REQUEST_LIMIT} bytes")
        # One request a turn, and none before the last one's answer has gone: a client that
        # asks without end, or never reads, holds up itself only.
        if not each.waiting and not each.unsent and not each.closing:
            line, newline, _ = each.received.partition(b"\n")
            if newline:
                del each.received[: len(line) + 1]
                each.waiting = True
                self._on_line(each, bytes(line))
        self._wait_for(each)

    def _receive(self, each: _Client) -> bool:
        """Take what has come; False if the client has hung up."""
        try:
            data = each.socket.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not each.closing:
            each.received += data
        return bool(data)

    def _wait_for(self, each: _Client) -> None:
        """Tell the selector what we want of the client next."""
        if each not in self._clients:
            return
        # A whole request that waits for its turn: being able to write calls us again.
        ripe = not each.waiting and b"\n" in each.received
        more = selectors.EVENT_WRITE if each.unsent or ripe else 0
        events = selectors.EVENT_READ | more
        key = self._engine.selector.get_key(each.socket)
        if key.events != events:
            self._engine.selector.modify(each.socket, events, key.data)

    def _on_line(self, each: _Client, line: bytes) -> None:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._fail(each, f"no JSON: {error}")
            return
        try:
            self._serve(each, _checked(request))
        except _RefusedError as error:
            self._fail(each, str(error))

    def _serve(self, each: _Client, request: dict[str, Any]) -> None:
        engine = self._engine
        match request.get("do"):
            case "status":
                recent = request.get("recent", 0)
                if type(recent) is not int or not 0 <= recent <= RECENT_LIMIT:
                    raise _RefusedError(f'expected "recent": a number from 0 to {RECENT_LIMIT}')
                more = report.recent(engine, recent) if recent else {}
                self._answer(each, {**report.status(engine), **more})
            case "sync":
                began = time.monotonic()
                engine.sync(
                    lambda: self._answer(
                        each,
                        {
                            "seconds": round(time.monotonic() - began, 4),
                            "errors": report.errors(engine),
                        },
                    )
                )
            case "build":
                paths, force = request.get("paths", []), request.get("force", False)
                if not _are_paths(paths) or not isinstance(force, bool):
                    raise _RefusedError('expected "paths": [path…] and "force": true or false')
                if engine.paused:
                    raise _RefusedError("assetd is paused: `assetd resume` goes on")
                began = time.monotonic()

                def built(order: Order) -> None:
                    self._answer(each, report.order(engine, order, time.monotonic() - began))

                engine.build(Order(tuple(paths), force), built)
            case "repair":
                outputs = request.get("outputs", [])
                if not _are_paths(outputs):
                    raise _RefusedError('expected "outputs": [path…]')
                if engine.paused:
                    raise _RefusedError("assetd is paused: `assetd resume` goes on")
                engine.repair(
                    outputs, lambda: self._answer(each, {"errors": report.errors(engine)})
                )
            case "subscribe":
                names = request.get("events", [])
                if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                    raise _RefusedError('expected "events": [name…]')
                self._answer(each, {})
                each.events = frozenset(names)
            case "pause":
                engine.pause()
                self._answer(each, report.status(engine))
            case "resume":
                engine.resume()
                self._answer(each, report.status(engine))
            case "reload":
                engine.reload(
                    lambda: self._answer(
                        each,
                        {
                            "generation": engine.generation,
                            "config_errors": [str(problem) for problem in engine.problems],
                        },
                    )
                )
                engine.rescan()
            case "metrics":
                self._answer(each, {"text": metrics.text(engine, self._counts)})
            case "stop":
                self._answer(each, {"pid": os.getpid()})
                self._stop()
            case other:
                raise _RefusedError(f"unknown request {other!r}")

    def _answer(self, each: _Client, data: object) -> None:
        self._send(each, {"ok": True, "data": data})

    def _fail(self, each: _Client, why: str) -> None:
        self._send(each, {"ok": False, "error": why})

    def _send(self, each: _Client, message: dict[str, Any]) -> None:
        if each not in self._clients:
            return  # it hung up before its answer was ready
        each.waiting = False
        each.unsent += _line(message)
        if len(each.unsent) > REPLY_LIMIT:
            self._hang_up(each)
            return
        self._flush(each)

    def _flush(self, each: _Client) -> None:
        try:
            while each.unsent:
                sent = each.socket.send(each.unsent)
                del each.unsent[:sent]
                if each.missed and not each.unsent:
                    each.unsent += _line(report.event("missed", "warning", {"count": each.missed}))
                    each.missed = 0
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up(each)
            return
        if each.closing and not each.unsent:
            self._hang_up(each)
            return
        self._wait_for(each)

    def _hang_up(self, each: _Client) -> None:
        if each in self._clients:
            self._clients.remove(each)
            self._engine.selector.unregister(each.socket)
            each.socket.close()


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, default=str).encode("ascii") + b"\n"


def _checked(request: object) -> dict[str, Any]:
    if not isinstance(request, dict):
        raise _RefusedError("expected a JSON object")
    if request.get("v", client.VERSION) != client.VERSION:
        raise _RefusedError(f"protocol version {request.get('v')!r}: expected {client.VERSION}")
    return request


def _are_paths(value: object) -> bool:
    if not isinstance(value, list):
        return False
    for path in value:
        if not isinstance(path, str) or "\0" in path:
            return False
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            return False  # half a surrogate pair is no file name
    return True
