"""Plots as SVG, written by hand: no library is needed for bars and lines."""

import math
from collections.abc import Iterable, Mapping
from html import escape

from tests.bench.figures import Findings, Times

_COLORS = ("#0b6e4f", "#c1440e", "#31588a", "#8a5a00", "#6b3fa0", "#4d4d4d")
_OURS = _COLORS[0]
_THEIRS = "#9aa5b1"


def _svg(width: int, height: int, body: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    )
    # White, whatever the page is: its text is dark.
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>\n"])


def _text(x: float, y: float, text: str, **style: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str = "#ddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _decades(low: float, high: float) -> tuple[int, int]:
    return math.floor(math.log10(low)), math.ceil(math.log10(high))


def latency(findings: Findings) -> str:
    """A bar for each contender at each kind of save: p50, with a line to p99.  Logarithmic."""
    groups: dict[str, list[Times]] = {}
    for each in findings.times:
        groups.setdefault(each.name, []).append(each)
    if not groups:
        return _svg(200, 40, [_text(10, 25, "no saves were measured")])
    low = min(t.p50 for t in findings.times)
    first, last = _decades(low, max(t.p99 for t in findings.times))
    left, right, bar, top = 190.0, 690.0, 16, 40

    def x(ms: float) -> float:
        return left + (right - left) * (math.log10(ms) - first) / max(1, last - first)

    body, y = [], float(top)
    for name, times in groups.items():
        body.append(_text(10, y + 12, name, font_weight="bold"))
        y += bar + 4
        for each in sorted(times, key=lambda t: t.p50):
            color = _OURS if each.contender.startswith("assetd") else _THEIRS
            body.append(_text(left - 8, y + 11, each.contender, text_anchor="end"))
            body.append(
                f'<rect x="{left}" y="{y}" width="{x(each.p50) - left:.1f}" height="{bar - 3}" '
                f'fill="{color}"/>'
            )
            body.append(_line(x(each.p50), y + 6, x(each.p99), y + 6, "#333"))
            body.append(_text(x(each.p99) + 5, y + 11, f"{each.p50:,.1f} ms"))
            y += bar
        y += 10
    grid = [
        part
        for decade in range(first, last + 1)
        for part in (
            _line(x(10.0**decade), top - 8, x(10.0**decade), y),
            _text(x(10.0**decade), top - 14, f"{10.0**decade:,g} ms", text_anchor="middle"),
        )
    ]
    return _svg(780, int(y) + 10, [*grid, *body])


def scaling(lines: Mapping[str, Mapping[int, float]]) -> str:
    """Milliseconds by the number of sources, a line for each; both axes logarithmic."""
    points = [(size, ms) for line in lines.values() for size, ms in line.items()]
    if not points:
        return _svg(200, 40, [_text(10, 25, "no sizes were measured")])
    first, last = _decades(min(s for s, _ in points), max(s for s, _ in points))
    low, high = _decades(min(ms for _, ms in points), max(ms for _, ms in points))
    left, right, top, bottom = 80.0, 520.0, 20.0, 360.0

    def x(size: float) -> float:
        return left + (right - left) * (math.log10(size) - first) / max(1, last - first)

    def y(ms: float) -> float:
        return bottom - (bottom - top) * (math.log10(ms) - low) / max(1, high - low)

    body = []
    for decade in range(first, last + 1):
        at = x(10.0**decade)
        body.append(_line(at, top, at, bottom))
        body.append(_text(at, bottom + 18, f"{10**decade:,}", text_anchor="middle"))
    for decade in range(low, high + 1):
        at = y(10.0**decade)
        body.append(_line(left, at, right, at))
        body.append(_text(left - 8, at + 4, f"{10.0**decade:,g} ms", text_anchor="end"))
    body.append(_text((left + right) / 2, bottom + 38, "sources", text_anchor="middle"))
    ends = []
    for number, (name, line) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        ordered = sorted(line.items())
        path = " ".join(f"{x(size):.1f},{y(ms):.1f}" for size, ms in ordered)
        body.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        body += [
            f'<circle cx="{x(size):.1f}" cy="{y(ms):.1f}" r="3" fill="{color}"/>'
            for size, ms in ordered
        ]
        ends.append((y(ordered[-1][1]), name, color))
    free = top
    for at, name, color in sorted(ends):
        free = max(free, at)
        body.append(_text(right + 10, free + 4, name, fill=color))
        free += 15
    return _svg(760, 410, body)
