"""What `concat` makes of its parts where a source map is asked for."""

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from assetd.processor import Step
from assetd_processors import source_maps
from assetd_processors.sass_paths import stable_name, url

_COMMENT: Final = re.compile(
    rb"//[#@][ \t]*sourceMappingURL=(\S+)[ \t]*$|"
    rb"/\*[#@][ \t]*sourceMappingURL=(\S+?)[ \t]*\*/",
    re.MULTILINE,
)


@dataclass(slots=True)
class Joined:
    """The parts of one output as they are put together."""

    step: Step
    name: str
    delim: bytes
    _content: bytearray = field(default_factory=bytearray)
    _maps: source_maps.Joiner = field(default_factory=source_maps.Joiner)
    _parts: int = 0

    def add(self, path: str, content: bytes) -> None:
        """Put the part at *path* behind what is there."""
        if self._parts:
            self._content += self.delim
            self._maps.add(_text(self.delim), None)
        self._parts += 1
        # Its comment must go: the last one in a file counts.  Its line stays.
        comments = list(_COMMENT.finditer(content))
        bare = _COMMENT.sub(b"", content)
        source_map = self._map(path, comments[-1]) if comments else None
        if source_map is None:
            source_map = source_maps.identity(_text(content), self._shown(path))
        self._content += bare
        self._maps.add(_text(bare), source_map)

    def write(self) -> None:
        """Make the output and its map."""
        base = os.path.basename(self.name)
        comment = f"sourceMappingURL={url(base)}.map"
        text = f"/*# {comment} */\n" if base.lower().endswith(".css") else f"//# {comment}\n"
        if self._content and not self._content.endswith(b"\n"):
            text = "\n" + text
        self.step.write(self.name + ".map", source_maps.render(self._maps.made(), url(base)))
        self.step.write(self.name, bytes(self._content) + text.encode())

    def _shown(self, path: str) -> str:
        return url(stable_name(self.step, path, ()))

    def _map(self, part: str, comment: re.Match[bytes]) -> source_maps.SourceMap | None:
        """The source map of a part, its sources named as ours; None if it cannot be had."""
        link = (comment[1] or comment[2]).decode("utf-8", "replace")
        line = comment.string.count(b"\n", 0, comment.start()) + 1
        at = part
        try:
            if link.startswith("data:"):
                text = _inline(link)
            elif urlsplit(link).scheme or link.startswith("//"):
                self._miss(part, line, f"the source map {link} is not on this disk")
                return None
            else:
                at = os.path.normpath(os.path.join(os.path.dirname(part), unquote(link)))
                self.step.depends(at)
                with open(at, encoding="utf-8-sig") as file:
                    text = file.read()
            return self._named(source_maps.parse(text), os.path.dirname(at))
        except FileNotFoundError:
            self._miss(part, line, f"its source map {link} does not exist")
        except OSError as error:
            self._miss(part, line, f"its source map {link} cannot be read: {error.strerror}")
        except (source_maps.MapError, UnicodeDecodeError, binascii.Error) as error:
            self._miss(at, line if at == part else None, f"not a source map: {error}")
        return None

    def _miss(self, file: str, line: int | None, message: str) -> None:
        self.step.warn(f"{message}: the map leads to the part itself", file=file, line=line)

    def _named(self, given: source_maps.SourceMap, folder: str) -> source_maps.SourceMap:
        sources: list[str] = []
        contents: list[str | None] = []
        for source, content in zip(given.sources, given.contents, strict=True):
            if urlsplit(source).scheme:
                sources.append(source)
                contents.append(content)
                continue
            path = os.path.normpath(os.path.join(folder, unquote(source)))
            sources.append(self._shown(path))
            contents.append(self._read(path) if content is None else content)
        return source_maps.SourceMap(given.lines, sources, contents, given.names)

    def _read(self, path: str) -> str | None:
        self.step.depends(path)
        try:
            with open(path, "rb") as file:
                return _text(file.read())
        except OSError:
            return None


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _inline(link: str) -> str:
    """What a `data:` URL holds."""
    head, _, data = link.partition(",")
    raw = unquote_to_bytes(data)
    return (base64.b64decode(raw) if head.endswith(";base64") else raw).decode("utf-8-sig")
