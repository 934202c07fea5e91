"""One warm Node process for all Node processors of a worker: `node/server.cjs`.

It starts with the first request and ends with its worker.  It answers one request at a time,
as JSON lines over a socket of its own; what tools print goes to the owner's log.  One that
dies, hangs or outgrows its memory is replaced, and only the request that it was at suffers: a
crash is tried once more on a fresh process.

A processor says `warm=tool_server.shared` and, in its step, `tool_server.ask(step, ...)`.
"""

import atexit
import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from assetd.errors import BuildError
from assetd.processor import Setting, Step
from assetd_processors import tools

TIMEOUT_SECONDS: Final = 100.0
"""Of a request.  Below the limit of a step, so that it is the tool that is named and replaced,
and not the worker."""
MEMORY_BYTES: Final = 1 << 30
_LOOK_SECONDS: Final = 0.25
"""How often the memory is looked at during a request.  Between requests nobody looks."""

_F_SETSIG: Final = 10
_DROPPED: Final = ("NODE_", "BROWSERSLIST", "AUTOPREFIXER", "ESBUILD_")
"""Variables that would change results without being part of any key, by their beginnings."""


class ToolServerError(Exception):
    """There is no answer: Node is not there, died, hung or grew.  A sentence for people."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What a tool has to say, and where."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request."""

    value: Mapping[str, Any] | None
    """What the tool made; None if it failed."""
    error: Remark | None
    warnings: Sequence[Remark]
    reads: Sequence[str]
    """Every file that was read, or looked for and not there: absolute paths."""


@dataclass(slots=True)
class _Running:
    """A server process and our ends of its pipes."""

    process: subprocess.Popen[bytes]
    pipe: socket.socket
    life: int
    """A pipe on which nothing is ever written: when we are gone, the kernel ends it."""
    answered: int = 0
    heard: bytearray = field(default_factory=bytearray)


class ToolServer:
    """Starts, asks and replaces one server process.  For one thread."""

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._running: _Running | None = None
        self._serial = 0

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._running is None else self._running.process.pid

    def call(
        self,
        tool: str,
        request: Mapping[str, Any],
        *,
        cwd: str | os.PathLike[str],
        hide: Sequence[str | os.PathLike[str]] = (),
        timeout_seconds: float = TIMEOUT_SECONDS,
        on_read: Callable[[str], None] = lambda _path: None,
    ) -> Answer:
        """Ask *tool*, a name in `node/tools` or the absolute path of a module.

        Args:
            tool: Whom.
            request: What; anything that JSON has.
            cwd: The project's folder, absolute.
            hide: Files and folders that are left out of `Answer.reads`.
            timeout_seconds: For both attempts together.
            on_read: Hears of each of `Answer.reads` as soon as it is read.

        Raises:
            ToolServerError: There is no answer.
        """
        deadline = time.monotonic() + timeout_seconds
        self._serial += 1
        message = {
            "id": self._serial,
            "tool": tool,
            "cwd": os.fspath(cwd),
            "hide": [os.fspath(path) for path in hide],
            "request": request,
        }
        line = json.dumps(message).encode() + b"\n"
        for last in (False, True):
            running = self._running or self._start()
            try:
                answer = self._exchange(running, line, deadline, on_read)
            except _GoneError as error:
                fresh = running.answered == 0
                self.close()
                if last or (fresh and not error.again):
                    raise ToolServerError(f"{_name(tool)}: {error}") from error
            except _HungError as error:
                self.close()
                raise ToolServerError(
                    f"{_name(tool)}: Node gave no answer within {timeout_seconds:g} s"
                ) from error
            else:
                running.answered += 1
                if answer.get("spoiled") or _rss_bytes(running) > self._memory_bytes:
                    self.close()
                return _answer(answer)
        raise AssertionError("the last attempt answers or raises")

    def close(self) -> None:
        """End the process; the next request starts another."""
        running, self._running = self._running, None
        if running is not None:
            running.process.kill()
            running.process.wait()
            running.pipe.close()
            os.close(running.life)

    def _start(self) -> _Running:
        node = tools.node()
        if node is None:
            raise ToolServerError(f"Node is not there: {tools.NO_NODE}")
        ours, theirs = socket.socketpair()
        life_theirs, life_ours = os.pipe()
        said = _own_stderr()
        try:
            process = subprocess.Popen(
                [
                    node,
                    f"--max-old-space-size={self._memory_bytes >> 20}",
                    os.fspath(tools.HERE / "server.cjs"),
                    os.fspath(tools.packages()),
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=(theirs.fileno(), life_theirs),
                env={k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)},
            )
        except OSError as error:
            ours.close()
            os.close(life_ours)
            raise ToolServerError(f"{node} does not start: {error.strerror}") from error
        else:
            # A server that is stuck in a tool does not see its pipe end: the kernel kills it.
            fcntl.fcntl(life_theirs, fcntl.F_SETOWN, process.pid)
            fcntl.fcntl(life_theirs, _F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(life_theirs, fcntl.F_SETFL, os.O_ASYNC)
        finally:
            theirs.close()
            os.close(life_theirs)
            if said is not None:
                os.close(said)
        tools.note_use()
        self._running = _Running(process, ours, life_ours)
        return self._running

    def _exchange(
        self, running: _Running, line: bytes, deadline: float, on_read: Callable[[str], None]
    ) -> dict[str, Any]:
        try:
            running.pipe.settimeout(max(0.001, deadline - time.monotonic()))
            running.pipe.sendall(line)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _HungError
                running.pipe.settimeout(min(left, _LOOK_SECONDS))
                try:
                    data = running.pipe.recv(1 << 18)
                except TimeoutError:
                    if (grown := _rss_bytes(running)) > self._memory_bytes:
                        text = f"Node grew to {grown >> 20} MB and was ended"
                        raise _GoneError(text, again=False) from None
                    continue
                if not data:
                    raise _GoneError(_end(running), again=True)
                running.heard += data
                while (at := running.heard.find(b"\n")) >= 0:
                    answer: dict[str, Any] = json.loads(running.heard[:at])
                    del running.heard[: at + 1]
                    if answer["id"] != self._serial:
                        continue
                    if "read" not in answer:
                        return answer
                    on_read(answer["read"])
        except TimeoutError as error:
            raise _HungError from error
        except OSError as error:
            raise _GoneError(_end(running), again=True) from error


class _GoneError(Exception):
    """The process died, or had to."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again
        """Whether a process that did nothing else before deserves another try."""


class _HungError(Exception):
    """The time is up."""


def _answer(row: Mapping[str, Any]) -> Answer:
    error = row.get("error")
    return Answer(
        row.get("value"),
        None if error is None else _remark(error),
        tuple(_remark(each) for each in row["warnings"]),
        tuple(row["reads"]),
    )


def _remark(row: Mapping[str, Any]) -> Remark:
    return Remark(row["message"], row.get("file"), row.get("line"), row.get("column"))


def _rss_bytes(running: _Running) -> int:
    try:
        with open(f"/proc/{running.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError):
        return 0  # it is gone: its pipe tells


def _end(running: _Running) -> str:
    """How the process ended, whose pipe did."""
    try:
        code = running.process.wait(1.0)
    except subprocess.TimeoutExpired:
        return "Node closed its pipe"
    if code < 0:
        return f"Node was ended by {signal.Signals(-code).name}"
    return f"Node ended with exit code {code}"


def _name(tool: str) -> str:
    return os.path.basename(tool).removesuffix(".cjs")


def _own_stderr() -> int | None:
    """Our stderr, opened anew; None where that cannot be, and it is to be inherited.

    Node makes the pipes that it gets non-blocking, and would make ours so.
    """
    try:
        return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return None


_shared: ToolServer | None = None


def shared(_setting: Setting | None = None) -> ToolServer:
    """The one server of this process; for `Processor.warm`."""
    global _shared  # noqa: PLW0603  # it belongs to the process, as the worker's other tools do
    if _shared is None:
        _shared = ToolServer()
        atexit.register(_shared.close)
    return _shared


def text(step: Step) -> str:
    """The input of a step, which must be UTF-8."""
    data = step.input.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise step.fail("not UTF-8: save it as UTF-8", line=line) from error


def ask(
    step: Step,
    tool: str,
    *,
    hide: Sequence[str | os.PathLike[str]] = (),
    timeout_seconds: float = TIMEOUT_SECONDS,
    **request: Any,
) -> Mapping[str, Any]:
    """What *tool* makes of the request; says to the step what it read, and its warnings.

    Raises:
        BuildError: The tool says that something is wrong, or there is no answer.
    """
    server: ToolServer = step.warm
    origin = os.fspath(step.origin)

    def reads(path: str) -> None:
        if path != origin:
            step.depends(path)

    try:
        answer = server.call(
            tool,
            request,
            cwd=step.project,
            hide=(*hide, step.input),
            timeout_seconds=timeout_seconds,
            on_read=reads,
        )
    except ToolServerError as error:
        raise step.fail(str(error)) from error
    for path in answer.reads:
        reads(path)
    for said in answer.warnings:
        step.warn(said.message, file=said.file, line=said.line, column=said.column)
    if answer.value is None:
        wrong = answer.error or Remark(f"{_name(tool)} made nothing")
        raise _fail(step, wrong)
    return answer.value


def _fail(step: Step, wrong: Remark) -> BuildError:
    return step.fail(wrong.message, file=wrong.file, line=wrong.line, column=wrong.column)


def chained(step: Step) -> str | None:
    """The source map that the node before made of the input; None if it made none."""
    companion = step.companions.get(step.path + ".map")
    return None if companion is None else companion.read_text(encoding="utf-8")
