"""Messages over a pipe: JSON behind its length.  Knows bytes, not what they mean."""

import json
import struct
from typing import Any, Final, TypeAlias

Message: TypeAlias = dict[str, Any]

LIMIT: Final = 256 << 20
"""No message of ours comes near it; a longer one means that the pipe holds rubbish."""

_HEAD: Final = struct.Struct("!I")


class WireError(ValueError):
    """The bytes are no message of ours."""


def encode(message: Message) -> bytes:
    """The bytes of *message*.  ASCII only, so that names that are not UTF-8 survive."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return _HEAD.pack(len(body)) + body


class Reader:
    """Collects bytes and gives the messages that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that *data* completes.

        Raises:
            WireError: It is not what `encode` makes.
        """
        self._buffer += data
        messages = []
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer, at)
            if length > LIMIT:
                raise WireError(f"a message of {length} bytes: expected at most {LIMIT}")
            end = at + _HEAD.size + length
            if len(self._buffer) < end:
                break
            messages.append(_decode(bytes(self._buffer[at + _HEAD.size : end])))
            at = end
        if at:
            del self._buffer[:at]
        return messages


def _decode(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise WireError(f"a {type(message).__name__}: expected an object")
    return message
