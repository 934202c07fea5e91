"""`assetd.yml` → a frozen `Config`.  Knows keys, values and places, not which processors exist.

Three steps, each of which goes on after a mistake, so that all are told at once: text becomes
nodes that know their lines (`Page`), nodes become values by the tables of keys (`parse`), and
paths become places that fit together on this disk (`resolve`).  A key that no table has is
the section of a processor, and the registry's to judge.

Scalars are resolved by what their key expects, never by YAML's guess: `no` is a name and
`12:30` is text, unless true or a number was asked for.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_origin

from assetd import patterns
from assetd import place as places
from assetd import stamp as stamps
from assetd.document import (
    SIZE_LIMIT,
    Items,
    Node,
    Page,
    Scalar,
    Table,
    data,
    nearest,
    seconds,
    shown,
    size,
    suggestion,
)
from assetd.errors import ConfigError
from assetd.model import Place, Problem

if TYPE_CHECKING:  # `assetd status` reads this module, and needs no plugin contract
    from assetd.processor import Option

FILE_NAMES: Final = ("assetd.yml", "assetd.yaml")
RECORD_NAME: Final = "record.sqlite"
"""Of the record, in the state folder."""
DEFAULT_FILTER: Final = ("all", "-uglifyjs", "-cleancss")

Backend: TypeAlias = Literal["auto", "inotify", "polling"]
Durability: TypeAlias = Literal["normal", "full", "off"]
Notify: TypeAlias = Literal["none", "desktop"]
Sandbox: TypeAlias = Literal["auto", "off", "required"]


@dataclass(frozen=True, slots=True)
class Mount:
    """A source folder."""

    name: str
    """As the configuration has it, without a slash at the end."""
    folder: str
    """Real and absolute."""
    place: Place
    """Of the folder; "" if the mount is the project itself."""
    processors: tuple[str, ...] | None
    """Its filter, term by term.  None: the configuration's."""
    line: int
    filter_line: int | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """How changes are noticed."""

    backend: Backend = "auto"
    interval_seconds: float = 1.0
    """Between two looks, where looking is all that helps."""


@dataclass(frozen=True, slots=True)
class Settle:
    """How long changes are gathered before they are built."""

    gap_seconds: float = 0.02
    """Quiet for so long, a burst is over."""
    patience_seconds: float = 0.25
    """A burst that goes on is not waited for any longer."""
    deletion_seconds: float = 0.1
    """What is back by then was edited, not deleted."""
    git_seconds: float = 5.0
    """The longest wait for git's index lock."""


@dataclass(frozen=True, slots=True)
class Section:
    """A processor's options as plain data, unchecked."""

    line: int
    values: Mapping[str, object]
    lines: Mapping[str, int]
    found: str | None = None
    """What stands there, if it is no mapping."""


@dataclass(frozen=True, slots=True)
class Config:
    """What `assetd.yml` says.  Every path is real and absolute."""

    file: str
    project: str
    out_dir: str
    state_dir: str
    mounts: tuple[Mount, ...]
    """The first that has a path wins."""
    ignore: tuple[str, ...]
    """On top of `patterns.BUILT_IN_IGNORES`."""
    force: tuple[str, ...]
    processors: tuple[str, ...]
    """The filter of a mount that has none."""
    workers: int
    plugins: tuple[str, ...]
    watch: Watch
    settle: Settle
    durability: Durability
    store_bytes: int
    job_timeout_seconds: float | None
    """None: each processor's own."""
    on_batch: tuple[str, ...] = ()
    """A command that gets each batch, word by word."""
    on_batch_timeout_seconds: float = 60.0
    notify: Notify = "none"
    sandbox: Sandbox = "auto"
    sandbox_read: tuple[str, ...] = ()
    """What workers may read besides the project and the system."""
    sandbox_write: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """What the paths above were found through: if one leads elsewhere, they are others."""
    sections: Mapping[str, Section] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    """Of the keys at the top."""

    @property
    def record_path(self) -> str:
        """Where the record is, or will be."""
        return os.path.join(self.state_dir, RECORD_NAME)

    def row(self) -> dict[str, Any]:
        """The fact as a JSON object, without what only messages about the file need."""
        return asdict(replace(self, sections={}, lines={}))

    @staticmethod
    def of(row: Mapping[str, Any]) -> "Config":
        """The fact that `row()` made."""
        values: dict[str, Any] = _tuples(row)
        values["mounts"] = tuple(Mount(**mount) for mount in values["mounts"])
        values |= {"watch": Watch(**row["watch"]), "settle": Settle(**row["settle"])}
        return Config(**values)


def _tuples(value: Any) -> Any:
    match value:
        case list():
            return tuple(map(_tuples, value))
        case dict():
            return {name: _tuples(item) for name, item in value.items()}
        case _:
            return value


@dataclass(frozen=True, slots=True)
class Draft:
    """What the text says, before anybody looked at the disk."""

    values: Mapping[str, Any]
    """By the fields of `Config`; a path as written, with its line; mounts without folders."""
    sections: Mapping[str, Section]
    lines: Mapping[str, int]
    problems: tuple[Problem, ...]


def find(start: str) -> str | None:
    """The configuration file of the folder *start* or the nearest folder above it."""
    folder = os.path.abspath(start)
    while True:
        for name in FILE_NAMES:
            if os.path.isfile(file := os.path.join(folder, name)):
                return file
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def read(file: str) -> tuple[Config, tuple[Problem, ...]]:
    """What *file* says, and all that is wrong with it.

    With problems the configuration is good for telling more of them, and for finding a
    daemon that still runs with the one before; not for building.

    Raises:
        ConfigError: There is nothing to go on with.
    """
    return resolve(parse(_text(file), file), file)


def named_in(file: str) -> list[str]:
    """The folders that hold what *file* names, the mounts and the plugins, there or not.

    Raises:
        ConfigError: There is nothing to go on with.
    """
    draft = parse(_text(file), file)
    named = [mount.name for mount in draft.values["mounts"]]
    named += [text for text, _ in draft.values["plugins"]]
    project = os.path.realpath(os.path.dirname(os.path.abspath(file)))
    return [os.path.dirname(os.path.normpath(os.path.join(project, text))) for text in named]


def _text(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError([Problem(f"cannot be read: {error.strerror}", file)]) from None


def _positive_seconds(text: str) -> float:
    if (duration := seconds(text)) < 0.01:
        raise ValueError(f"expected 10ms or more, found {shown(text)}")
    return duration


def _workers(text: str) -> int:
    if text == "auto":
        return max(1, len(os.sched_getaffinity(0)))
    if re.fullmatch("[0-9]{1,4}", text) is None or not 1 <= int(text) <= 1024:
        raise ValueError(f"expected auto or a whole number from 1 to 1024, found {shown(text)}")
    return int(text)


def _path(text: str) -> str:
    if text == "" or "\0" in text:
        raise ValueError(f"expected a path, found {shown(text)}")
    return text


def _word(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"expected a word of a command, found {shown(text)}")
    return text


def _pattern(text: str) -> str:
    patterns.check(text)
    return text


# --- keys -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key expects."""

    schema: Mapping[str, object]
    """Of its value, as JSON Schema."""
    read: Callable[[Page, str, Node], Any]
    """The value of a node, given the key's full name; None, and told, if it is wrong."""
    keys: "Sequence[Key]" = ()
    """Of a mapping: what may stand in it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: all that the parser, the schema and the documentation know of it."""

    name: str
    kind: Kind
    help: str
    default: Any = None
    unit: str = ""
    """What the field's name has on top of the key's."""

    @property
    def field(self) -> str:
        """Of the dataclass that its value goes to."""
        return self.name + self.unit


def _scalar(convert: Callable[[str], Any], schema: Mapping[str, object]) -> Kind:
    def read(page: Page, name: str, node: Node) -> Any:
        if not isinstance(node, Scalar):
            page.wrong(node.line, f"{name}: expected a single value, found {shown(data(node))}")
            return None
        try:
            return convert(node.text)
        except ValueError as error:
            page.wrong(node.line, f"{name}: {error}")
            return None

    return Kind(schema, read)


def _placed(page: Page, name: str, node: Node) -> tuple[str, int] | None:
    """A path as it is written, and its line."""
    text = _PATH.read(page, name, node)
    return None if text is None else (text, node.line)


def _choice(*choices: str) -> Kind:
    def convert(text: str) -> str:
        if text not in choices:
            expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
            hint = suggestion(text, choices)
            raise ValueError(f"expected {expected}, found {shown(text)}{hint}")
        return text

    return _scalar(convert, {"enum": list(choices)})


def _several(one: Kind) -> Kind:
    """A list, for which a single item may stand."""

    def read(page: Page, name: str, node: Node) -> tuple[Any, ...] | None:
        nodes = node.items if isinstance(node, Items) else (node,)
        values = tuple(one.read(page, name, item) for item in nodes)
        return None if None in values else values

    return Kind({"anyOf": [one.schema, {"type": "array", "items": one.schema}]}, read)


def _block(keys: Sequence[Key], make: Callable[..., Any]) -> Kind:
    """A mapping with keys of its own."""

    def read(page: Page, name: str, node: Node) -> Any:
        return make(**_by_key(page, keys, f"{name}.", node))

    return Kind(_object(keys), read, keys)


def _by_key(
    page: Page,
    keys: Sequence[Key],
    prefix: str,
    node: Node,
    others: dict[str, tuple[int, Node]] | None = None,
) -> dict[str, Any]:
    """The values by field; what is no key of ours goes to *others*, or is told.

    A key without a value counts as not given: people comment out what stood below it.
    """
    values = {key.field: key.default for key in keys}
    if not isinstance(node, Table):
        page.wrong(node.line, f"{prefix[:-1]}: expected a mapping, found {shown(data(node))}")
        return values
    known = {key.name: key for key in keys}
    for name, (line, value) in node.items.items():
        key = known.get(name)
        if key is None and others is not None:
            others[name] = (line, value)
        elif key is None:
            hint = suggestion(name, known)
            page.wrong(line, f"unknown key {shown(prefix + name)}{hint}")
        elif data(value) is not None:
            read = key.kind.read(page, prefix + name, value)
            values[key.field] = key.default if read is None else read
    return values


def _object(keys: Sequence[Key], more: Mapping[str, Any] | None = None) -> dict[str, object]:
    properties = {key.name: {**key.kind.schema, "description": key.help} for key in keys}
    return {
        "type": "object",
        "properties": {**properties, **(more or {})},
        "additionalProperties": False,
    }


def _filter(page: Page, name: str, node: Node) -> tuple[str, ...] | None:
    texts = _TEXTS.read(page, name, node)
    if texts is None:
        return None
    return tuple(term for text in texts for term in re.split(r"[\s,]+", text) if term)


def _command(page: Page, name: str, node: Node) -> tuple[str, ...] | None:
    words: tuple[str, ...] | None = _WORDS.read(page, name, node)
    if words and not words[0]:
        page.wrong(node.line, f"{name}: expected a command, found {shown(words[0])}")
        return None
    if words and not isinstance(node, Items) and " " in words[0]:
        # No shell parts it, and whoever writes it like this means more than one word.
        told = ", ".join(words[0].split())
        page.wrong(node.line, f"{name}: there is no shell: write each word by itself, [{told}]")
        return None
    return words


def _mounts(page: Page, _name: str, node: Node) -> tuple[Mount, ...]:
    """The mounts, their folders still to be looked for."""
    if not isinstance(node, Table):
        listed = node.items if isinstance(node, Items) else (node,)
        found = filter(None, (_placed(page, "mounts", item) for item in listed))
        return tuple(Mount(os.path.normpath(text), "", "", None, line) for text, line in found)
    mounts: list[Mount] = []
    for text, (line, value) in node.items.items():
        given = {} if data(value) is None else _by_key(page, MOUNT_KEYS, f"mounts.{text}.", value)
        at = value.items.get("processors") if isinstance(value, Table) else None
        if _placed(page, "mounts", Scalar(text, False, line)) is not None:
            name, filter_line = os.path.normpath(text), None if at is None else at[0]
            mounts.append(Mount(name, "", "", given.get("processors"), line, filter_line))
    return tuple(mounts)


_TEXTS: Final = _several(_scalar(str, {"type": "string"}))
_PATH: Final = _scalar(_path, {"type": "string", "minLength": 1})
_PLACED: Final = Kind(_PATH.schema, _placed)
_PATTERNS: Final = _several(_scalar(_pattern, {"type": "string"}))
_FILTER: Final = Kind(_TEXTS.schema, _filter)
_WORDS: Final = _several(_scalar(_word, {"type": "string"}))
_COMMAND: Final = Kind(_WORDS.schema, _command)
_AMOUNT: Final = {"type": ["string", "number"], "minimum": 0}
_SIZE: Final = _scalar(size, _AMOUNT)
_DURATION: Final = _scalar(seconds, _AMOUNT)
_TIMEOUT: Final = _scalar(_positive_seconds, _AMOUNT)
_COUNT: Final = {"type": "integer", "minimum": 1, "maximum": 1024}
_WORKERS: Final = _scalar(_workers, {"anyOf": [{"const": "auto"}, _COUNT]})
_BACKEND: Final = _choice("auto", "inotify", "polling")
_DURABILITY: Final = _choice("normal", "full", "off")
_NOTIFY: Final = _choice("none", "desktop")
_SANDBOX: Final = _choice("auto", "off", "required")

MOUNT_KEYS: Final = (Key("processors", _FILTER, "Which processors its sources may go through."),)
_MOUNT: Final = {"anyOf": [{"type": "null"}, _object(MOUNT_KEYS)]}
_MOUNTS: Final = Kind(
    {"anyOf": [_TEXTS.schema, {"type": "object", "additionalProperties": _MOUNT}]}, _mounts
)
WATCH_KEYS: Final = (
    Key("backend", _BACKEND, "Where changes are heard of.", "auto"),
    Key("interval", _TIMEOUT, "The time between two looks when polling.", 1.0, "_seconds"),
)
SETTLE_KEYS: Final = (
    Key("gap", _DURATION, "Quiet for so long, a burst of changes is over.", 0.02, "_seconds"),
    Key("patience", _DURATION, "A burst is waited for no longer.", 0.25, "_seconds"),
    Key("deletion", _DURATION, "What is back by then was only edited.", 0.1, "_seconds"),
    Key("git", _DURATION, "The longest wait for git to finish a checkout.", 5.0, "_seconds"),
)
KEYS: Final = (
    Key("mounts", _MOUNTS, "The source folders; the first that has a path wins.", ()),
    Key("out_dir", _PLACED, "The folder where outputs go.", ("public", None)),
    Key("state_dir", _PLACED, "The folder of record, store and staging.", (".assetd", None)),
    Key("processors", _FILTER, "The filter of every mount that has none.", DEFAULT_FILTER),
    Key("ignore", _PATTERNS, "Patterns of paths that are no sources.", ()),
    Key("force", _PATTERNS, "Patterns of sources that every batch of their mount rebuilds.", ()),
    Key("plugins", _several(_PLACED), "Python files with processors of your own.", ()),
    Key("workers", _WORKERS, "How many processes build; `auto` is one for each core."),
    Key("watch", _block(WATCH_KEYS, Watch), "How changes are noticed.", Watch()),
    Key("settle", _block(SETTLE_KEYS, Settle), "How long changes are gathered.", Settle()),
    Key("durability", _DURABILITY, "How much of the record survives a power cut.", "normal"),
    Key("store", _SIZE, "The room for results that are kept, in bytes.", 1 << 30, "_bytes"),
    Key("job_timeout", _TIMEOUT, "The limit of every job.", None, "_seconds"),
    Key("on_batch", _COMMAND, "A command, word by word, that gets each batch as JSON.", ()),
    Key("on_batch_timeout", _TIMEOUT, "The limit of that command.", 60.0, "_seconds"),
    Key("notify", _NOTIFY, "Who is told when the project breaks and when it is mended.", "none"),
    Key("sandbox", _SANDBOX, "Whether workers are confined to what they need.", "auto"),
    Key("sandbox_read", _several(_PLACED), "More that confined workers may read.", ()),
    Key("sandbox_write", _several(_PLACED), "More that confined workers may write to.", ()),
)


def parse(text: bytes, file: str) -> Draft:
    """What *text* says; nothing but the text is looked at.

    Args:
        text: What the file holds.
        file: Its path, for the messages.

    Raises:
        ConfigError: There is nothing to go on with.
    """
    page = Page(file)
    node = page.compose(text)
    if node is None or data(node) is None:
        node = Table({}, 1)
    if not isinstance(node, Table):
        raise page.stop(node.line, f"expected a mapping of keys, found {shown(data(node))}")
    others: dict[str, tuple[int, Node]] = {}
    values = _by_key(page, KEYS, "", node, others)
    if values["workers"] is None:
        values["workers"] = _workers("auto")
    lines = {name: line for name, (line, _) in node.items.items()}
    if "mounts" not in lines or data(node.items["mounts"][1]) in (None, [], {}):
        example = '"mounts: [assets]"'
        page.wrong(lines.get("mounts"), f"no mounts: say where the sources are, as in {example}")
    sections = {name: _section(line, value) for name, (line, value) in others.items()}
    return Draft(values, sections, lines, tuple(page.problems))


def _section(line: int, node: Node) -> Section:
    if isinstance(node, Table):
        lines = {name: line for name, (line, _) in node.items.items()}
        return Section(line, {k: data(v) for k, (_, v) in node.items.items()}, lines)
    found = data(node)
    return Section(line, {}, {}, None if found is None else shown(found))


def schema(sections: Mapping[str, "Sequence[Option]"]) -> dict[str, object]:
    """The JSON Schema of `assetd.yml`, for editors.

    Args:
        sections: The options of each processor, by its name.
    """
    known = {
        name: {
            "type": ["object", "null"],
            "description": f"Options of the processor {name}.",
            "properties": {option.name: _option_schema(option) for option in options},
            "additionalProperties": False,
        }
        for name, options in sections.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FILE_NAMES[0],
        **_object(KEYS, known),
        "required": ["mounts"],
    }


def _option_schema(option: "Option") -> dict[str, object]:
    kind = get_origin(option.type) or option.type
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
    told: dict[str, object] = {"enum": list(option.choices)} if option.choices else {}
    if kind is list:
        one = {"type": "string", **told}
        told = {"anyOf": [{"type": "string"}, {"type": "array", "items": one}]}
    else:
        told["type"] = names[kind]
    limits = {"minimum": option.minimum, "maximum": option.maximum, "default": option.default}
    told |= {name: value for name, value in limits.items() if value is not None}
    return {**told, "description": option.help}


# --- places ---------------------------------------------------------------------------------


def resolve(draft: Draft, file: str) -> tuple[Config, tuple[Problem, ...]]:
    """The draft with its paths found on this disk, and all that is wrong so far."""
    page = Page(file, list(draft.problems))
    # The folder's real path, not the file's: a linked `assetd.yml` counts where the link is.
    project = os.path.realpath(os.path.dirname(os.path.abspath(file)))

    links: list[str] = []

    def real(text: str) -> str:
        path = os.path.join(project, text)
        links.extend(stamps.way(path)[0])
        return os.path.realpath(path)

    values = dict(draft.values)
    roots: dict[str, tuple[str, int | None]] = {}
    for key in ("out_dir", "state_dir"):
        text, line = values[key]
        values[key] = folder = real(text)
        if wrong := _unfit(folder, project):
            page.wrong(line, f"{key}: {shown(text)} {wrong}")
        else:
            roots[key] = (folder, line)
    if len(roots) == 2 and _overlap(*(folder for folder, _ in roots.values())):
        line = next((line for _, line in roots.values() if line), None)
        page.wrong(line, "out_dir and state_dir lie one in the other: keep them apart")
    mounts: list[Mount] = []
    for draft_mount in values["mounts"]:
        folder = real(draft_mount.name)
        mount = replace(draft_mount, folder=folder, place=places.of(folder, project))
        for line, message in _misfits(mount, mounts, roots, project):
            page.wrong(line, message)
        mounts.append(mount)
    plugins: list[str] = []
    for text, line in values["plugins"]:
        if os.path.isfile(plugin := real(text)):
            plugins.append(plugin)
        else:
            hint = _near(text, project, os.path.isfile)
            page.wrong(line, f"plugins: {shown(text)} is not a file that is there{hint}")
    values |= {"mounts": tuple(mounts), "plugins": tuple(dict.fromkeys(plugins))}
    for key in ("sandbox_read", "sandbox_write"):
        opened: list[str] = []
        for text, line in values[key]:
            folder = real(text)
            if not os.path.exists(folder):
                hint = _near(text, project, os.path.exists)
                page.wrong(line, f"{key}: {shown(text)} is not there{hint}")
            elif folder == "/":
                page.wrong(line, f"{key}: {shown(text)} is everything: say `sandbox: off`")
            elif key == "sandbox_write" and (wrong := _ours(folder, roots)) is not None:
                page.wrong(line, f"{key}: {shown(text)} and {wrong} lie one in the other")
            opened.append(folder)
        values[key] = tuple(opened)
    values["links"] = tuple(dict.fromkeys(links))
    name = os.path.join(project, os.path.basename(file))
    config = Config(name, project, **values, sections=draft.sections, lines=draft.lines)
    return config, tuple(page.problems)


def _unfit(folder: str, project: str) -> str | None:
    """Why we cannot have *folder* to ourselves."""
    if places.is_below(project, folder):
        return "is the project folder, or above it: name a folder of its own"
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return f"cannot be a folder: {shown(places.of(folder, project))} is a file"
    return None


def _ours(folder: str, roots: Mapping[str, tuple[str, int | None]]) -> str | None:
    """The key whose folder nobody but us may write to, and *folder* would open."""
    return next((key for key, (root, _) in roots.items() if _overlap(folder, root)), None)


def _misfits(
    mount: Mount, before: Sequence[Mount], roots: Mapping[str, tuple[str, int | None]], project: str
) -> Iterator[tuple[int | None, str]]:
    """What is wrong with where *mount* lies, with the line to look at."""
    name = f"mounts: {shown(mount.name)}"
    if not os.path.isdir(mount.folder):
        told = "is a file: mounts are folders" if os.path.lexists(mount.folder) else "is not there"
        yield mount.line, f"{name} {told}{_near(mount.name, project, os.path.isdir)}"
    for other in before:
        where = f"{shown(other.name)} in line {other.line}"
        if mount.folder == other.folder:
            yield mount.line, f"{name} is the same folder as {where}: list it once"
        elif _overlap(mount.folder, other.folder):
            # Each file would be two sources, with two names.
            yield mount.line, f"{name} and {where} lie one in the other: keep them apart"
    for key, (root, root_line) in roots.items():
        if places.is_below(mount.folder, root):
            yield mount.line, f"{name} lies in {key}: what is in there is made by assetd"
        elif key == "out_dir" and places.is_below(root, mount.folder):
            # The state folder may lie in a mount: it is ignored.  Outputs would be sources.
            line = mount.line if root_line is None else root_line
            yield line, f"{key}: lies in the mount {shown(mount.name)}: keep them apart"


def _overlap(one: str, other: str) -> bool:
    return places.is_below(one, other) or places.is_below(other, one)


def _near(text: str, project: str, fits: Callable[[str], bool]) -> str:
    """A suggestion from what *fits* beside the path that does not."""
    folder, name = os.path.split(os.path.normpath(text))
    beside = os.path.join(project, folder)
    try:
        names = [other for other in os.listdir(beside) if fits(os.path.join(beside, other))]
    except OSError:
        return ""
    near = nearest(name, names)
    return "" if near is None else f" (did you mean {shown(os.path.join(folder, near))}?)"
