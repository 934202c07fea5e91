"""Places to paths and back.  A place is how we name a file everywhere: see `model`."""

import os
from collections.abc import Iterator

from assetd.model import Place


def of(path: str | os.PathLike[str], project: str) -> Place:
    """The place of *path*, which may be relative to the project; no link is resolved."""
    full = os.path.normpath(os.path.join(project, os.fspath(path)))
    if full == project:
        return ""
    prefix = project if project.endswith("/") else project + "/"
    return full.removeprefix(prefix)


def path(place: Place, project: str) -> str:
    """The absolute path of the file at *place*."""
    # By hand: a plan asks this of every dependency, and `os.path.join` takes three times as long.
    if not place:
        return project
    return place if place.startswith("/") else join(project, place)


def join(folder: Place, name: str) -> Place:
    """The place of *name* in *folder*."""
    return f"{folder}/{name}" if folder not in {"", "/"} else folder + name


def split(place: Place) -> tuple[Place, str]:
    """The folder and the name of *place*."""
    folder, slash, name = place.rpartition("/")
    return (folder or slash if place.startswith("/") else folder), name


def above(place: Place) -> Iterator[Place]:
    """The folders that *place* lies in, the nearest first, the project's own last."""
    folder = place
    while folder not in {"", "/"}:
        folder = split(folder)[0]
        yield folder


def is_below(place: Place, folder: Place) -> bool:
    """Whether *place* is *folder* or something in it, at any depth."""
    if folder == "":
        return not place.startswith("/")
    return place == folder or place.startswith(folder if folder == "/" else folder + "/")
