"""Source maps, decoded, joined and encoded.  Pure: knows texts and names, no files.

https://tc39.es/ecma426/ is the format.  Lines and columns count from 0; a column counts UTF-16
code units, as in JavaScript.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}


class Origin(NamedTuple):
    """Where something comes from."""

    source: int
    line: int
    column: int
    name: int | None = None


class Segment(NamedTuple):
    """From this column on, to the next segment's or the line's end."""

    column: int
    origin: Origin | None
    """None: it comes from nowhere."""


class MapError(ValueError):
    """It is no source map; the text says why."""


def decode(mappings: str) -> list[list[Segment]]:
    """The segments of each line of what was generated.

    Raises:
        MapError: A character that does not belong there, or a field too few.
    """
    lines: list[list[Segment]] = []
    source = line = column = name = 0
    for text in mappings.split(";"):
        segments: list[Segment] = []
        at = 0
        for one in filter(None, text.split(",")):
            fields = list(_numbers(one))
            at += fields[0]
            origin = None
            if len(fields) in {4, 5}:
                source, line, column = source + fields[1], line + fields[2], column + fields[3]
                if len(fields) == 5:
                    name += fields[4]
                origin = Origin(source, line, column, name if len(fields) == 5 else None)
                if min(source, line, column, name) < 0:
                    raise MapError(f"the segment {one!r} leads to before the start")
            elif len(fields) != 1:
                raise MapError(f"the segment {one!r} has {len(fields)} fields")
            if at < 0:
                raise MapError(f"the segment {one!r} lies before its line")
            segments.append(Segment(at, origin))
        lines.append(sorted(segments, key=lambda segment: segment.column))
    return lines


def encode(lines: Iterable[Iterable[Segment]]) -> str:
    """What `decode` takes."""
    out = []
    source = line = column = name = 0
    for segments in lines:
        at = 0
        texts = []
        for segment in segments:
            fields = [segment.column - at]
            at = segment.column
            if segment.origin is not None:
                origin = segment.origin
                fields += [origin.source - source, origin.line - line, origin.column - column]
                source, line, column = origin.source, origin.line, origin.column
                if origin.name is not None:
                    fields.append(origin.name - name)
                    name = origin.name
            texts.append("".join(map(_digits, fields)))
        out.append(",".join(texts))
    return ";".join(out)


def _numbers(text: str) -> Iterator[int]:
    number = shift = 0
    for char in text:
        value = _VALUES.get(char)
        if value is None:
            raise MapError(f"{char!r} is no digit of a mapping")
        number |= (value & 31) << shift
        shift += 5
        if value < 32:
            yield -(number >> 1) if number & 1 else number >> 1
            number = shift = 0
        elif shift > 60:
            raise MapError("a number in the mappings is too large")
    if shift:
        raise MapError(f"the mappings end within a number: {text!r}")


def _digits(number: int) -> str:
    rest = -number << 1 | 1 if number < 0 else number << 1
    out = ""
    while True:
        rest, digit = rest >> 5, rest & 31
        out += _DIGITS[digit | 32 if rest else digit]
        if not rest:
            return out


@dataclass(frozen=True, slots=True)
class SourceMap:
    """A source map, taken apart."""

    lines: Sequence[Sequence[Segment]]
    sources: Sequence[str]
    contents: Sequence[str | None]
    names: Sequence[str]


def parse(text: str) -> SourceMap:
    """The source map of a JSON text, one with sections too.

    Raises:
        MapError: It is none.
    """
    try:
        # Servers that fear for their JSON may put `)]}'` before it.
        data = json.loads(text.partition("\n")[2] if text.startswith(")]}'") else text)
    except (ValueError, RecursionError) as error:
        raise MapError(f"it is no JSON: {error}") from error
    try:
        return _read(data)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise MapError(f"it has not the form of a source map: {error!r}") from error


def _read(data: Mapping[str, Any]) -> SourceMap:
    if "sections" in data:
        joiner = Joiner()
        for section in data["sections"]:
            offset = section["offset"]
            joiner.move(int(offset["line"]), int(offset["column"]))
            joiner.put(_read(section["map"]))
        return joiner.made()
    root = data.get("sourceRoot") or ""
    root = root if not root or root.endswith("/") else root + "/"
    sources = [root + (source or "") for source in data["sources"]]
    contents = list(data.get("sourcesContent") or ())[: len(sources)]
    contents += [None] * (len(sources) - len(contents))
    names = [str(name) for name in data.get("names") or ()]
    lines = decode(data["mappings"])
    for segments in lines:
        for _, origin in segments:
            if origin is None:
                continue
            if origin.source >= len(sources) or (origin.name or 0) >= max(1, len(names)):
                raise MapError("the mappings name a source that is not there")
    return SourceMap(lines, sources, contents, names)


def identity(text: str, source: str) -> SourceMap:
    """The map of a text that is its own source, line by line."""
    count = text.count("\n") + 1
    lines = [[Segment(0, Origin(0, number, 0))] for number in range(count)]
    return SourceMap(lines, [source], [text], [])


@dataclass(slots=True)
class Joiner:
    """Joins the maps of texts that are put one behind the other."""

    _line: int = 0
    _column: int = 0
    _lines: list[list[Segment]] = field(default_factory=lambda: [[]])
    _sources: dict[str, int] = field(default_factory=dict)
    _contents: list[str | None] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)

    def add(self, text: str, source_map: SourceMap | None) -> None:
        """Put *text* behind what is there; with None, it comes from nowhere."""
        if source_map is None:
            self._append(Segment(self._column, None))
        else:
            self.put(source_map)
        *before, last = text.split("\n")
        if before:
            self.move(self._line + len(before), 0)
        self._column += len(last.encode("utf-16-le", "surrogatepass")) // 2

    def move(self, line: int, column: int) -> None:
        """Go on at a place behind what is there."""
        self._line, self._column = line, column
        while len(self._lines) <= line:
            self._lines.append([])

    def put(self, source_map: SourceMap) -> None:
        """Lay *source_map* at the place where we are; the place stays."""
        sources = [
            self._source(*pair)
            for pair in zip(source_map.sources, source_map.contents, strict=True)
        ]
        names = [self._names.setdefault(name, len(self._names)) for name in source_map.names]
        first, start = self._line, self._column
        # What stands before its first segment belongs to nobody, least of all to the text before.
        self._append(Segment(start, None))
        for number, segments in enumerate(source_map.lines):
            if segments:
                self.move(first + number, 0)
            for column, origin in segments:
                moved = origin
                if origin is not None:
                    name = None if origin.name is None else names[origin.name]
                    moved = Origin(sources[origin.source], origin.line, origin.column, name)
                self._append(Segment(column + (0 if number else start), moved))
        self._line, self._column = first, start

    def _append(self, segment: Segment) -> None:
        line = self._lines[self._line]
        if line and line[-1].column == segment.column:
            line.pop()
        line.append(segment)

    def _source(self, name: str, content: str | None) -> int:
        index = self._sources.setdefault(name, len(self._sources))
        if index == len(self._contents):
            self._contents.append(content)
        elif self._contents[index] is None:
            self._contents[index] = content
        return index

    def made(self) -> SourceMap:
        """What has been joined."""
        lines = [
            # A line that nothing is known of needs no segment to say so.
            [] if all(segment.origin is None for segment in line) else line
            for line in self._lines
        ]
        return SourceMap(lines, list(self._sources), list(self._contents), list(self._names))


def render(source_map: SourceMap, file: str) -> str:
    """The JSON text of a map for *file*."""
    data = {
        "version": 3,
        "file": file,
        "sources": list(source_map.sources),
        "sourcesContent": list(source_map.contents),
        "names": list(source_map.names),
        "mappings": encode(source_map.lines).rstrip(";"),
    }
    return json.dumps(data, separators=(",", ":"))
