"""A project as it is configured, for people and scripts: keys, processors, and their tools."""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Final, TextIO, get_origin

from assetd import config as configs
from assetd import place as places
from assetd.document import suggestion
from assetd.errors import AssetdError, UsageError
from assetd.processor import Option
from assetd.registry import Opened, Project
from assetd.words import printable

_PATHS: Final = {"out_dir", "state_dir", "plugins", "sandbox_read", "sandbox_write"}
"""Keys whose values are paths, which a configuration has in full once it is read."""
TOOLS_GROUP: Final = "assetd.tools"
"""Entry points of functions that install tools: they tell a `TextIO` what they do."""


def rows(project: Project, name: str | None) -> list[dict[str, Any]]:
    """What there is to know of every processor, or of the one called *name*, as JSON has it.

    Raises:
        UsageError: There is no such processor.
    """
    names = [opened.processor.name for opened in project.processors]
    if name is not None and name not in names:
        raise UsageError(f'processor "{name}" is not installed{suggestion(name, names)}')
    return [
        _row(project, opened)
        for opened in project.processors
        if name is None or opened.processor.name == name
    ]


def _row(project: Project, opened: Opened) -> dict[str, Any]:
    processor, tool = opened.processor, opened.tool
    return {
        "name": processor.name,
        "version": processor.version,
        "origin": opened.origin,
        "tool": None if tool is None else {"name": tool.name, "version": tool.version},
        "available": opened.available,
        "reason": None if tool is None or opened.available else f"{tool.name} is not there",
        "cure": None if tool is None else tool.cure,
        "default": processor.default,
        "mounts": [name for name, chosen in project.chosen.items() if opened in chosen],
        "options": [_option(option, opened) for option in processor.options],
    }


def _option(option: Option, opened: Opened) -> dict[str, Any]:
    kind = get_origin(option.type) or option.type
    return {
        "name": option.name,
        "type": kind.__name__,
        "default": list(option.default) if isinstance(option.default, tuple) else option.default,
        "value": opened.options[option.name],
        "choices": list(option.choices),
        "minimum": option.minimum,
        "maximum": option.maximum,
        "help": option.help,
    }


def configuration(project: Project) -> dict[str, Any]:
    """Every key of `assetd.yml` with the value that is in force, in its own form."""
    config = project.config
    values: dict[str, Any] = {}
    for key in configs.KEYS:
        value = getattr(config, key.field)
        values[key.name] = _written(key, value, config.project)
    values["mounts"] = {
        mount.name: {"processors": [opened.processor.name for opened in project.enabled(mount)]}
        for mount in config.mounts
    }
    for opened in project.processors:
        options = {option.name: opened.options[option.name] for option in opened.processor.options}
        if options:
            values[opened.processor.name] = options
    return values


def _written(key: configs.Key, value: Any, project: str) -> Any:
    """A value as somebody would write it into the file."""
    if key.kind.keys:
        keys = key.kind.keys
        return {each.name: _written(each, getattr(value, each.field), project) for each in keys}
    if isinstance(value, tuple):
        return [_written(key, each, project) for each in value]
    return places.of(value, project) if key.name in _PATHS else value


def written(project: Project) -> str:
    """The configuration in full, as an `assetd.yml` that says the same."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            del data
            return True

    values = {k: v for k, v in configuration(project).items() if v is not None}
    head = f"# {project.config.file}, with every key and what it is here\n"
    return head + yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def schema(project: Project) -> dict[str, object]:
    """The JSON Schema of `assetd.yml`, with the sections of the processors that there are."""
    return configs.schema({o.processor.name: o.processor.options for o in project.processors})


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each processor."""
    cells = [(row["name"], _tool(row), _state(row)) for row in found]
    widths = [max((len(cell[column]) for cell in cells), default=0) for column in (0, 1)]
    for name, tool, state in cells:
        yield f"{name:{widths[0]}}  {tool:{widths[1]}}  {state}".rstrip()


def page(row: Mapping[str, Any]) -> Iterator[str]:
    """All that there is to know of one processor."""
    yield f"{row['name']} {printable(row['version'])}"
    if row["tool"] is not None:
        yield f"tool: {_tool(row)}"
    yield f"state: {_state(row)}"
    yield f"from: {printable(row['origin'])}"
    for option in row["options"]:
        yield ""
        choices = f"; {', '.join(str(each) or repr(each) for each in option['choices'])}"
        limits = [option["minimum"], option["maximum"]]
        told = choices if option["choices"] else ""
        if limits != [None, None]:
            told += "; " + " to ".join("" if each is None else f"{each:g}" for each in limits)
        yield f"{option['name']}: {option['type']}{told}"
        yield f"  {printable(option['help'])}"
        here = "" if option["value"] == option["default"] else f", here {_yaml(option['value'])}"
        yield f"  default {_yaml(option['default'])}{here}"
    if row["options"]:
        option = row["options"][0]
        others = [each for each in option["choices"] if each != option["value"]]
        yield ""
        yield "in assetd.yml, for example:"
        yield f"  {row['name']}:"
        yield f"    {option['name']}: {_yaml(others[0] if others else option['value'])}"


def _yaml(value: object) -> str:
    """A value as `assetd.yml` takes it: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def _tool(row: Mapping[str, Any]) -> str:
    tool = row["tool"]
    return "" if tool is None else printable(f"{tool['name']} {tool['version'] or ''}".rstrip())


def _state(row: Mapping[str, Any]) -> str:
    if not row["available"]:
        cure = "" if row["cure"] is None else f": {row['cure']}"
        return printable(f"unavailable, {row['reason']}{cure}")
    return f"used by {printable(', '.join(row['mounts']))}" if row["mounts"] else "not used"


def install_tools(to: TextIO) -> None:
    """Install what the processors of every installed package ask for.

    Raises:
        AssetdError: Something cannot be installed; the text says what to do about it.
    """
    for point in sorted(entry_points(group=TOOLS_GROUP), key=lambda p: (p.name, p.value)):
        try:
            install = point.load()
        except ImportError as error:
            raise AssetdError(f"the tools of {point.value} cannot be installed: {error}") from error
        install(to)
