"""Entry points of the packages that are installed.  What `importlib.metadata` says, sooner.

That module brings mail, CSV and ZIP archives along, which takes longer than a build with nothing
to do has.  The ordinary case, folders of packages on `sys.path`, is read here; where there is
anything else, it is asked.

https://packaging.python.org/en/latest/specifications/entry-points/
"""

import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import NamedTuple

_VALUE = re.compile(r"(?P<module>[\w.]+)\s*(?::\s*(?P<attribute>[\w.]+)\s*)?(?:\[.*\])?\s*")


class Point(NamedTuple):
    """One entry point."""

    name: str
    module: str
    attribute: str


def entry_points(group: str) -> list[Point]:
    """The entry points of *group*, by name."""
    found = _quick(group)
    if found is None:
        from importlib import metadata

        listed = metadata.entry_points(group=group)
        found = [Point(each.name, each.module, each.attr or "") for each in listed]
    return sorted(found)


def _quick(group: str) -> list[Point] | None:
    """The same from folders alone; None if packages may be elsewhere, too."""
    if any(hasattr(f, "find_distributions") and f is not PathFinder for f in sys.meta_path):
        return None
    found = []
    seen = set()
    for folder in dict.fromkeys(sys.path):
        try:
            names = os.listdir(folder or ".")
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            return None  # an archive
        except OSError:
            continue
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix not in {".dist-info", ".egg-info"}:
                if suffix == ".egg":
                    return None
                continue
            package = re.sub(r"[-_.]+", "_", stem.partition("-")[0]).lower()
            if package in seen:
                continue  # the first on the path is the one that is imported
            seen.add(package)
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                    text = file.read()
            except OSError:
                continue
            points = list(_points(text, group))
            if None in points:
                return None
            found += [point for point in points if point is not None]
    return found


def _points(text: str, group: str) -> Iterator[Point | None]:
    """Those of *group* in the text of a package; None for one that is not understood."""
    if f"[{group}]" not in text:
        return
    section = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line
        elif section == f"[{group}]" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            match = _VALUE.fullmatch(value.strip())
            if match is None:
                yield None
            else:
                yield Point(name.strip(), match["module"], match["attribute"] or "")
