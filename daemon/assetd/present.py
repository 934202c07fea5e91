"""Facts as lines for people: aligned, quiet, and as readable without colour.  Pure.

Gets the JSON objects that scripts get, so that nobody is told what the others cannot know.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from assetd import words
from assetd.words import count, printable

Facts: TypeAlias = Mapping[str, Any]

ERRORS_SHOWN: Final = 5
"""In the status; `assetd errors` has them all."""
NAMES_SHOWN: Final = 8
_DAY_SECONDS: Final = 86_400

_WRONG: Final = {
    "failed": "it fails; what it made last stands",
    "conflict": "it is in conflict; what was there stays",
    "blocked": "it could not be put in place",
}
_ENDS: Final = {"ok": "built", "deleted": "taken away"}
"""How a build ended, where the word of the record is not the one for people."""
_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class _Paint:
    """Text in a colour, if colours are wanted."""

    def __init__(self, *, color: bool) -> None:
        self._color = color

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._color and text else text


def _rows(rows: Iterable[tuple[str, str]], paint: _Paint) -> list[str]:
    """Names and values, the values under each other; a row without a name goes on."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    return [f"  {paint('dim', name.ljust(width))}  {value}".rstrip() for name, value in listed]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns; the last one as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _several(names: Sequence[str], limit: int = NAMES_SHOWN) -> list[str]:
    """Names, and how many more there are."""
    shown = [printable(name) for name in names[:limit]]
    return [*shown, f"and {len(names) - limit:,} more"] if len(names) > limit else shown


# -- status -------------------------------------------------------------------------------


def status(status: Facts, *, color: bool) -> list[str]:
    """The answer to `assetd status`."""
    paint = _Paint(color=color)
    lines = [_headline(status, paint)]
    rows: list[tuple[str, str]] = []
    if "sources" in status:
        rows += _holdings(status)
        last = status["last_batch"]
        rows.append(("last batch", "none yet" if last is None else _batch(last)))
    if "queue" in status:
        rows += _work(status)
    lines += _rows(rows, paint)
    lines += _advice(status, paint)
    wrong = status.get("errors", ())
    if wrong:
        lines += ["", *_short_errors(wrong, paint)]
    return lines


def _headline(status: Facts, paint: _Paint) -> str:
    project = printable(status["project"])
    state = status["state"]
    if state == "stopped":
        known = {"sources", "trouble", "outdated"} & status.keys()
        more = "" if known else "; nothing was built here yet"
        return f"assetd is {paint('bold', 'stopped')} at {project}{more}"
    style = {"idle": "green", "stopping": "yellow", "paused": "yellow"}.get(state, "bold")
    if "uptime_s" not in status:  # it has the project, and does not answer yet
        return f"assetd is {paint(style, state)} at {project} (pid {status['pid']})"
    up = words.duration(status["uptime_s"])
    service = f", {printable(status['service'])}" if status.get("service") else ""
    who = f"pid {status['pid']}{service}"
    return f"assetd is {paint(style, state)} at {project}, up for {up} ({who})"


def _holdings(status: Facts) -> list[tuple[str, str]]:
    parts = [f"{status['sources']:,}", count(status["outputs"], "output")]
    if status["overridden"]:
        parts.append(f"{status['overridden']:,} overridden")
    rows = [("sources", "; ".join(parts))]
    mounts = status["mounts"]
    if mounts:
        table = _table([(printable(m["path"]), f"{m['sources']:,}") for m in mounts])
        rows += zip(["mounts", *[""] * (len(mounts) - 1)], table, strict=True)
    return rows


def _work(status: Facts) -> list[tuple[str, str]]:
    """What it is at, if it is at something; how fast it has been."""
    rows: list[tuple[str, str]] = []
    queue = status["queue"]
    if queue["suspects"] or queue["jobs"]:
        waiting = queue["jobs"] - queue["running"]
        parts = (
            count(queue["suspects"], "file to look at", "files to look at"),
            f"{waiting:,} waiting",
            f"{queue['running']:,} running",
        )
        rows.append(("queue", ", ".join(parts)))
    busy = [w for w in status["workers"] if w["job"] is not None]
    if busy:
        jobs = [f"{w['id']}: {printable(w['job'])}" for w in busy]
        rows += zip(["workers", *[""] * (len(jobs) - 1)], jobs, strict=True)
    restarts = sum(w["restarts"] for w in status["workers"])
    if restarts:
        rows.append(("restarts", f"{count(restarts, 'worker')} had to be replaced"))
    latency = status["latency_ms"]
    if latency["samples"]:
        told = ", ".join(
            f"{words.duration(latency[key] / 1000)} {key}" for key in ("p50", "p95", "p99")
        )
        rows.append(("latency", f"{told}, of {count(latency['samples'], 'save')}"))
    return rows


def _advice(status: Facts, paint: _Paint) -> list[str]:
    """What somebody should know or do something about."""
    lines = [
        f"{paint('red', 'refused:')} {printable(problem)}"
        for problem in status.get("config_errors", ())
    ]
    if lines:
        lines.append("  the configuration before it stays in force until that is mended")
    if status.get("trouble"):
        lines.append(f"{paint('red', 'trouble:')} {printable(status['trouble'])}")
    if status.get("outdated"):
        lines.append(printable(status["outdated"]))
    if status["state"] == "paused":
        lines.append("changes are noted, and nothing is built until `assetd resume`")
    watch = status.get("watch", {})
    if watch.get("backend") == "polling":
        every = words.duration(watch["interval_s"])
        refusal = watch.get("refusal")
        lines.append(
            f"polling: looks for changes every {every}, as the configuration says"
            if refusal is None
            else f"{paint('yellow', 'not watching:')} {printable(refusal)}; "
            f"looks for changes every {every} instead"
        )
    if watch.get("unwatched"):
        folders = count(watch["unwatched"], "folder")
        lines.append(
            f"{paint('yellow', 'unwatched:')} the kernel refuses to watch {folders}, so assetd "
            "looks there every other second; raise fs.inotify.max_user_watches"
        )
    if watch.get("overflows"):
        times = count(watch["overflows"], "time")
        lines.append(f"events were lost {times}; everything was looked at again after that")
    for link in status.get("not_followed", ())[:ERRORS_SHOWN]:
        path = printable(link["path"])
        lines.append(f"{paint('yellow', 'not followed:')} {path}: {printable(link['cause'])}")
    more = len(status.get("not_followed", ())) - ERRORS_SHOWN
    if more > 0:
        lines.append(f"  and {more:,} more")
    if status.get("warnings"):
        warnings = count(status["warnings"], "warning")
        lines.append(f"{paint('yellow', warnings)}: `assetd why PATH` shows those of a source")
    return ["", *lines] if lines else []


def _batch(facts: Facts) -> str:
    """A batch as half a sentence: `118 (watch), 2 min ago: 5 built in 38 ms`."""
    if facts["trigger"] is None:
        return f"{facts['id']}, of which no more is known"
    head = f"{facts['id']} ({facts['trigger']})"
    if facts["finished_at"] is None:
        return f"{head}, not finished"
    return f"{head}, {_when(facts['finished_at'])}: {words.tally(facts)}"


def _when(text: str) -> str:
    """A moment of the last day as how long ago, an older one by its date."""
    moment = datetime.fromisoformat(text)
    passed = (datetime.now(UTC) - moment).total_seconds()
    if passed < _DAY_SECONDS:
        return words.ago(moment.timestamp())
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


# -- errors -------------------------------------------------------------------------------


def errors(errors: Sequence[Facts], *, color: bool) -> list[str]:
    """The answer to `assetd errors`: each fault with its line, and whom it breaks."""
    paint = _Paint(color=color)
    lines: list[str] = []
    for group in _grouped(errors):
        if lines:
            lines.append("")
        lines += _fault(group[0], paint)
        lines += [f"    {paint('dim', line)}" for line in _broken(group)]
    return lines


def _grouped(errors: Sequence[Facts]) -> list[list[Facts]]:
    """The same fault in a shared file breaks many sources, and is told once."""
    groups: dict[tuple[Any, ...], list[Facts]] = {}
    for fault in errors:
        key = tuple(fault[name] for name in ("file", "line", "column", "message", "processor"))
        own = (fault["mount"], fault["source"]) if fault["file"] is None else ()
        groups.setdefault((*key, *own), []).append(fault)
    return list(groups.values())


def _place(fault: Facts) -> str:
    mount, source = fault["mount"], fault["source"]
    return str(source if mount == "." else f"{mount}/{source}")


def _broken(group: Sequence[Facts]) -> list[str]:
    """Which sources a fault breaks, and in which processor, as far as its head does not say."""
    processor = group[0]["processor"]
    by = "" if processor is None else f" ({printable(processor)})"
    places = [_place(fault) for fault in group]
    if places == [group[0]["file"]] or (group[0]["file"] is None and len(places) == 1):
        return [printable(processor)] if processor is not None else []
    return [f"breaks {', '.join(_several(places))}{by}"]


def _fault(fault: Facts, paint: _Paint) -> list[str]:
    """Where and what, then the line with a caret."""
    first, *more = fault["message"].splitlines() or [""]
    file = fault["file"] if fault["file"] is not None else _place(fault)
    numbers = [str(n) for n in (fault["line"], fault["column"]) if n is not None]
    where = printable(":".join([file, *numbers]))
    lines = [f"{paint('bold', where)}: {paint('red', printable(first))}"]
    lines += [f"  {printable(line)}" for line in more]
    # The head is ours, the excerpt with its caret is everybody's.
    lines += words.excerpt(fault["excerpt"], fault["line"], fault["column"])
    return lines


def _short_errors(errors: Sequence[Facts], paint: _Paint) -> list[str]:
    """The first few faults, a line each, and how many there are."""
    groups = _grouped(errors)
    lines = []
    for group in groups[:ERRORS_SHOWN]:
        head = _fault(group[0], paint)[0]
        others = f" (breaks {len(group):,} sources)" if len(group) > 1 else ""
        lines.append(head + others)
    more = len(groups) - ERRORS_SHOWN
    if more > 0:
        lines.append(f"and {more:,} more: `assetd errors` shows them all")
    else:
        lines.append("`assetd errors` shows the lines")
    return lines


# -- why ----------------------------------------------------------------------------------


def why(story: Facts, *, color: bool) -> list[str]:
    """The answer to `assetd why PATH`."""
    paint = _Paint(color=color)
    rows: list[tuple[str, str]] = []
    if story["reason"] is not None:
        told = "last change" if story["kind"] == "dependency" else "because"
        rows.append((told, printable(story["reason"]["sentence"])))
        rows.append(("batch", _batch(story["batch"])))
    for name, values in (
        ("took", [words.duration(story["seconds"])] if story.get("chain") else []),
        ("chain", _chain(story.get("chain", ()))),
        ("outputs", _outputs(story)),
        ("needs", _needs(story["depends_on"]) if story.get("chain") else []),
        ("needed by", _several(story["dependents"]) or ["nothing"]),
        ("overrides", _several(story.get("overrides", ()))),
        ("warnings", _several(story.get("warnings", ()))),
        ("before", _past(story.get("history", ()))),
    ):
        rows += zip([name, *[""] * (len(values) - 1)], values, strict=False)
    lines = [_title(story, paint), *_rows(rows, paint)]
    faults = errors(story.get("errors", ()), color=color)
    return [*lines, "", *faults] if faults else lines


def _title(story: Facts, paint: _Paint) -> str:
    path = paint("bold", printable(story["path"]))
    if story["kind"] == "dependency":
        if story["state"] == "absent":
            return f"{path} is not there; it was looked for"
        digest = f" ({words.short(story['digest'])})" if story["digest"] else ""
        return f"{path}{digest} is no source of its own; others are made from it"
    source = printable(story["source"])
    if story["kind"] == "output":
        if story["state"] == "gone":
            return f"{path} came from {source}, which is gone"
        head = f"{path} comes from {source}"
    else:
        if story["state"] == "gone":
            return f"{path} was a source of the mount {printable(story['mount'])}, and is gone"
        head = f"{path} is a source of the mount {printable(story['mount'])}"
    if story["state"] == "overridden":
        return f"{head}; it is overridden by {printable(str(story['overridden_by']))}"
    text = _WRONG.get(story["state"], "")
    if story["state"] == "failed" and not any(o["in_place"] for o in story["outputs"]):
        text = "it fails, and has never been built"
    return f"{head}; {paint('red', text)}" if text else head


def _chain(chain: Sequence[Facts]) -> list[str]:
    if not chain:
        return []
    return _table(
        [
            (
                printable(node["processor"]),
                printable(node["path"]),
                node["state"],
                words.duration(node["seconds"]) if node["seconds"] else "",
            )
            for node in chain
        ]
    )


def _outputs(story: Facts) -> list[str]:
    found = []
    for output in story.get("outputs", ()):
        there = f" ({words.short(output['digest'])})" if output["in_place"] else ", not in place"
        found.append(printable(output["path"]) + there)
    return found


def _needs(needs: Facts) -> list[str]:
    files = [f"{each['path']} ({words.short(each['digest'])})" for each in needs["files"]]
    globs = [f"{each['folder']}/{each['pattern']}" for each in needs["globs"]]
    found = _several(files) + _several(globs)
    if needs["absent"]:
        places = count(needs["absent"], "place")
        found.append(f"and that nothing appears in {places} where it looked first")
    return found or ["nothing besides its source"]


def _past(history: Sequence[Facts]) -> list[str]:
    if not history:
        return []
    rows = []
    for each in history:
        batch = each["batch"]
        when = _when(batch["finished_at"]) if batch.get("finished_at") else ""
        result = str(_ENDS.get(each["result"], each["result"]))
        sentence = printable(each["reason"]["sentence"])
        took = words.duration(each["seconds"]) if each["seconds"] else ""
        rows.append((f"batch {batch['id']}", when, result, took, sentence))
    return _table(rows)


# -- tree and list ------------------------------------------------------------------------


def tree(tree: Facts, *, color: bool) -> list[str]:
    """The answer to `assetd tree PATH`."""
    paint = _Paint(color=color)
    digest = f" {paint('dim', words.short(tree['digest']))}" if tree["digest"] else ""
    state = "" if tree["state"] == "ok" else f"  {paint('red', tree['state'])}"
    lines = [f"{paint('bold', printable(tree['source']))}{digest}{state}"]
    lines += _branches([_node(node, paint) for node in tree["nodes"]])
    return lines


_Branch: TypeAlias = tuple[str, list["_Branch"]]
"""A line, and what hangs from it."""


def _node(node: Facts, paint: _Paint) -> _Branch:
    style = {"failed": "red", "waiting": "yellow", "built": "green"}.get(node["state"], "dim")
    took = f"  {words.duration(node['seconds'])}" if node["seconds"] else ""
    line = f"{printable(node['processor'])} {printable(node['version'])}  "
    line += paint(style, node["state"]) + took
    if node["failure"] is not None:
        line += f"  {printable(node['failure'].splitlines()[0])}"
    return line, [_made(made, paint) for made in node["made"]]


def _made(made: Facts, paint: _Paint) -> _Branch:
    line = f"{printable(made['path'])} {paint('dim', words.short(made['digest']))}"
    if made["is_output"]:
        told = paint("green", "in place") if made["in_place"] else paint("yellow", "not in place")
        line += f"  {made['bytes']:,} bytes, {told}"
    return line, [_node(node, paint) for node in made["nodes"]]


def _branches(branches: Sequence[_Branch], indent: str = "") -> list[str]:
    lines: list[str] = []
    for number, (line, below) in enumerate(branches, 1):
        is_last = number == len(branches)
        lines.append(f"{indent}{'└─' if is_last else '├─'} {line}")
        lines += _branches(below, indent + ("   " if is_last else "│  "))
    return lines


def row(source: Facts, *, color: bool) -> str:
    """One line of `assetd list`: `ok  assets/css/site.scss → css/site.css`."""
    paint = _Paint(color=color)
    style = {"ok": "green", "overridden": "dim"}.get(source["state"], "red")
    state = paint(style, f"{source['state']:<10}")
    line = f"{state}  {printable(source['source'])}"
    outputs = ", ".join(_several(source["outputs"], 3))
    return f"{line} → {outputs}" if outputs else line


# -- the live view ------------------------------------------------------------------------

_BARS: Final = "▁▂▃▄▅▆▇█"
_SEQUENCE: Final = re.compile(r"\x1b\[[0-9;]*m")


def live(status: Facts, width: int, height: int, *, color: bool) -> list[str]:
    """The screen of `assetd status --watch`: lines that fit, the most important first.

    Args:
        status: With `recent` and `saves_ms`; with the state `stopped` if the daemon has gone.
        width: Columns of the terminal.
        height: Its lines.
        color: Whether to use colours.
    """
    paint = _Paint(color=color)
    if status["state"] == "stopped":
        project = printable(status["project"])
        head = f"assetd is {paint('red', 'gone')} at {project}; waiting for it to come back"
    else:
        head = _headline(status, paint)
    lines = [head, *_rows([*_holdings(status), *_pace(status)], paint)]
    lines += _advice(status, paint)
    if status["errors"]:
        lines += ["", *_short_errors(status["errors"], paint)]
    headings = [paint("dim", "  workers"), paint("dim", "  batches")]
    lines += ["", headings[0], *_workers(status, paint)]
    if status["recent"]:
        lines += ["", headings[1], *_recent(status["recent"], paint)]
    foot = paint("dim", "q quits")
    shown = lines[: max(1, height - 2)]
    while shown[-1] in {"", *headings}:  # of nothing that fits below it
        shown.pop()
    shown += [""] * (height - 1 - len(shown)) + [foot]
    return [_clipped(line, width) for line in shown[:height]]


def _pace(status: Facts) -> list[tuple[str, str]]:
    queue = status["queue"]
    waiting = queue["jobs"] - queue["running"]
    told = f"{queue['suspects']:,} to look at, {waiting:,} waiting, {queue['running']:,} running"
    rows = [("queue", told)]
    saves = status["saves_ms"]
    if saves:
        least, most = (words.duration(each / 1000) for each in (min(saves), max(saves)))
        rows.append(("saves", f"{_sparkline(saves)}  {least} to {most}"))
    return rows


def _sparkline(values: Sequence[float]) -> str:
    """A bar for each value, the highest for the greatest."""
    most = max(values) or 1.0
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in values)


def _workers(status: Facts, paint: _Paint) -> list[str]:
    rows = [
        (
            f"  {worker['id']}",
            worker["state"],
            f"{worker['jobs']:,} done",
            f"{worker['rss_bytes'] / (1 << 20):.0f} MB",
            f"{worker['restarts']} restarts" if worker["restarts"] else "",
            "" if worker["job"] is None else printable(worker["job"]),
        )
        for worker in status["workers"]
    ]
    return _table(rows) if rows else [paint("yellow", "  none")]


def _recent(batches: Sequence[Facts], paint: _Paint) -> list[str]:
    lines: list[str] = []
    for batch in batches:
        told = _batch(batch)
        lines.append(f"  {paint('red', told) if batch['failed'] else told}")
        for reason in batch["reasons"][:1]:
            sentence = f"{printable(reason['source'])}: {printable(reason['sentence'])}"
            lines.append(paint("dim", f"    {sentence}"))
    return lines


def _clipped(line: str, width: int) -> str:
    """As much of a line as fits; colours take no room."""
    kept: list[str] = []
    room = width
    for number, text in enumerate(_SEQUENCE.split(line)):
        kept += _SEQUENCE.findall(line)[number - 1 : number] if number else []
        for character in text:
            room -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
            if room < 0:
                break
            kept.append(character)
    return "".join(kept)
