"""The findings as text, Markdown and JSON."""

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.figures import Findings, Row


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    digits = 0 if value >= 1000 else 1 if value >= 20 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def _verdict(row: Row) -> str:
    if row.limit is None:
        return ""
    return "holds" if row.holds else f"misses it, by {_number(row.value - row.limit, row.unit)}"


def _figures(findings: Findings) -> Iterator[tuple[str, ...]]:
    yield "figure", "what", "measured", "floor", "ratio", "the floor is", "must be", "limit", ""
    for row in findings.rows:
        yield (
            row.figure,
            row.what,
            _number(row.value, row.unit),
            _number(row.floor, row.unit),
            _number(row.ratio),
            row.against,
            row.target,
            _number(row.limit, row.unit),
            _verdict(row),
        )


def _saves(findings: Findings) -> Iterator[tuple[str, ...]]:
    yield "save of", "by", "p50", "p95", "p99", "n", "times assetd"
    for kind in dict.fromkeys(t.kind for t in findings.times):
        ours = findings.of(kind, "assetd")
        for each in sorted((t for t in findings.times if t.kind == kind), key=lambda t: t.p50):
            yield (
                each.name,
                each.contender,
                _number(each.p50, "ms"),
                _number(each.p95, "ms"),
                _number(each.p99, "ms"),
                str(len(each.ms)),
                _number(None if ours is None else each.p50 / ours.p50),
            )


def _phases(findings: Findings) -> Iterator[tuple[str, ...]]:
    yield "save of", "phase", "p50"
    for name, what, ms in findings.save_phases:
        yield name, what, _number(ms, "ms")


def _table(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    rows = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rows.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(rows)


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": list(os.getloadavg()),
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def markdown(findings: Findings, command: str, before: dict[str, Any]) -> str:
    """All tables, with where and how they were measured."""
    held = [row.holds for row in findings.rows if row.holds is not None]
    where = (
        f"Measured by `{command}` on {before['at']} UTC: {before['cores']} cores, "
        f"Python {before['python']}, Linux {before['kernel']}, load {before['load'][0]:.1f} "
        f"before and {os.getloadavg()[0]:.1f} after.\n"
        f"{sum(held)} of {len(held)} rows that have a target hold."
    )
    tables = [list(lines) for lines in (_figures(findings), _saves(findings), _phases(findings))]
    notes = "\n".join(f"- {note}" for note in findings.notes)
    parts = [where, *(_table(lines) for lines in tables if len(lines) > 1), notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_json(file: Path, findings: Findings, command: str, before: dict[str, Any]) -> None:
    """Everything, for programs."""
    content = {
        "command": command,
        "machine": before,
        "rows": [asdict(r) | {"ratio": r.ratio, "holds": r.holds} for r in findings.rows],
        "saves": [
            {
                "kind": t.kind,
                "name": t.name,
                "contender": t.contender,
                "p50": t.p50,
                "p95": t.p95,
                "p99": t.p99,
                "ms": [round(ms, 3) for ms in t.ms],
            }
            for t in findings.times
        ],
        "scaling": findings.scaling,
        "phases": findings.save_phases,
        "notes": findings.notes,
    }
    file.write_text(json.dumps(content, indent=1) + "\n")
