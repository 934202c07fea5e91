"""YAML as nodes that know their lines, and text as the values that people write in it.

Knows nothing of our keys.  Goes on after a mistake, so that all are told at once.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from assetd.errors import ConfigError
from assetd.model import Problem

SIZE_LIMIT: Final = 1 << 20
DEPTH_LIMIT: Final = 20
_TOO_DEEP: Final = f"nested deeper than {DEPTH_LIMIT} levels"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of *names* that somebody who wrote *name* may have meant."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), 1)), None)


def suggestion(name: str, names: Iterable[str]) -> str:
    """The end of a message about *name*: ` (did you mean "…"?)`, or nothing."""
    near = nearest(name, names)
    return "" if near is None else f" (did you mean {shown(near)}?)"


def shown(value: object) -> str:
    """How a message shows what it found: short, and harmless on a terminal."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            text = value if len(value) <= 60 else value[:59] + "…"
            safe = (c if c.isprintable() else ascii(c)[1:-1] for c in text)
            return '"' + "".join(safe) + '"'
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case _:
            return str(value)[:60]


# --- values from text -----------------------------------------------------------------------

_MILLISECONDS: Final = {"": 1_000, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_BYTES: Final = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for unit, base in (("B", 1000), ("IB", 1024))
    for power, prefix in enumerate("KMGT", 1)
}


def seconds(text: str) -> float:
    """The duration that *text* writes: `500ms`, `2s`, `1m`, `1h`; a number alone is seconds.

    Raises:
        ValueError: It is none; the text says what was expected.
    """
    return _amount(text, _MILLISECONDS, "a duration such as 500ms or 2s") / 1_000


def size(text: str) -> int:
    """The bytes that *text* writes: `500MB`, `2GiB`; a number alone is bytes.

    Raises:
        ValueError: It is none; the text says what was expected.
    """
    return round(_amount(text, _BYTES, "a size such as 500MB or 2GiB"))


def _amount(text: str, units: Mapping[str, int], expected: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text)
    if match is not None:
        for unit in (match[2], match[2].upper()):
            if unit in units:
                return float(match[1]) * units[unit]
    raise ValueError(f"expected {expected}, found {shown(text)}")


def _plain(scalar: "Scalar") -> object:
    """What YAML 1.2's core schema makes of a scalar that nobody expects anything of."""
    text = scalar.text
    if not scalar.plain:
        return text
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]{1,100}", text):
        return int(text)
    if re.fullmatch(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}", text):
        return int(text, 0)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):
        return float(text.replace(".", ""))
    return text


# --- nodes ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value that is one text."""

    text: str
    plain: bool
    """Written without quotes."""
    line: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: "tuple[Node, ...]"
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping."""

    items: "Mapping[str, tuple[int, Node]]"
    """Each with the line of its key."""
    line: int


Node: TypeAlias = Scalar | Items | Table
_NOT_YAML: Final = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def data(node: Node) -> object:
    """The node as plain Python data."""
    match node:
        case Scalar():
            return _plain(node)
        case Items(items):
            return [data(item) for item in items]
        case Table(mapping):
            return {key: data(value) for key, (_, value) in mapping.items()}


@dataclass(slots=True)
class Page:
    """The file as it is read, and what was wrong so far."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, line: int | None, message: str) -> None:
        """Note a mistake and go on."""
        self.problems.append(Problem(message, os.path.basename(self.file), line))

    def stop(self, line: int | None, message: str) -> ConfigError:
        """Note a mistake after which nothing makes sense; raise what is returned."""
        self.wrong(line, message)
        return ConfigError(self.problems)

    def compose(self, text: bytes) -> Node | None:
        """The only document of *text*; None if it is empty.

        Raises:
            ConfigError: It is no YAML, or more than a configuration ever needs.
        """
        import yaml

        if len(text) > SIZE_LIMIT:
            raise self.stop(None, "larger than 1 MiB: that is no configuration")
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.stop(text.count(b"\n", 0, error.start) + 1, "not UTF-8") from None
        if odd := _NOT_YAML.search(decoded):
            line = decoded.count("\n", 0, odd.start()) + 1
            raise self.stop(line, f"the character {shown(odd[0])} is not allowed")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        # Events, not yaml.compose: that recurses in C, as deep as the text says.
        events: Iterator[Any] = yaml.parse(decoded, Loader=loader)
        try:
            next(events)
            if isinstance(next(events), yaml.StreamEndEvent):
                return None
            node = self._node(next(events), events, 1)
            next(events)
            if not isinstance(after := next(events), yaml.StreamEndEvent):
                raise self.stop(after.start_mark.line + 1, "a second document: there may be one")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            told = ", ".join(filter(None, (error.context, error.problem)))
            if "nesting depth" in told:  # libyaml as PyYAML 6.0.4 brings it has a limit too
                told = _TOO_DEEP
            tabs = "; indent with spaces, not with tabs" if re.search(r"\\t|\btab\b", told) else ""
            raise self.stop(None if mark is None else mark.line + 1, told + tabs) from None
        except yaml.YAMLError as error:
            raise self.stop(None, f"not YAML: {shown(str(error))}") from None
        return node

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        import yaml

        line = event.start_mark.line + 1
        if depth > DEPTH_LIMIT:
            raise self.stop(line, _TOO_DEEP)
        if isinstance(event, yaml.AliasEvent):
            # Nine lines of aliases can stand for a billion values.
            self.wrong(line, f"aliases (*{event.anchor}) do not work here: write it out")
            return Scalar("", True, line)
        if event.tag not in {None, "!", "tag:yaml.org,2002:str"}:
            self.wrong(line, f"tags ({shown(event.tag)}) do not work here: leave it out")
        if isinstance(event, yaml.ScalarEvent):
            try:
                event.value.encode()
            except UnicodeEncodeError:
                self.wrong(line, f"{shown(event.value)} is not Unicode")
                return Scalar("", True, line)
            return Scalar(event.value, event.tag is None and event.style in {None, ""}, line)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._node(event, events, depth + 1))
            return Items(tuple(items), line)
        mapping: dict[str, tuple[int, Node]] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            if not isinstance(key, Scalar):
                self.wrong(key.line, f"expected text as a key, found {shown(data(key))}")
            elif key.text in mapping:
                first = mapping[key.text][0]
                self.wrong(key.line, f"{shown(key.text)} is there already, in line {first}")
            else:
                mapping[key.text] = (key.line, value)
        return Table(mapping, line)
