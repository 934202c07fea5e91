"""The first `assetd.yml` of a folder, made from what is in there."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from typing import Final

from assetd.config import FILE_NAMES
from assetd.errors import UsageError
from assetd.place import is_below

_OWN: Final = (  # noqa: SIM905  # in a list, some would pass for names of processors
    "assets src/assets app/assets resources/assets src source static "
    "css scss sass less styles js scripts images img fonts"
).split()
"""Where sites keep their sources.  Of two that lie one in the other the first one is taken."""
_THEMES: Final = ("theme", "themes")
_PARTS: Final = frozenset("css scss sass less styles js scripts images img fonts".split())  # noqa: SIM905
"""What a theme without an `assets` holds; else its folders are themes themselves."""
_LOOKED_AT: Final = 10_000
"""Folders that we look into for a file; whoever has more empty ones names the mount."""

_TEXT: Final = """\
# What assetd builds here.  `assetd build` builds it once, `assetd run` keeps it built.
# Paths are relative to this file.

# Where the outputs go.  Other people's files in there are left alone.
out_dir: {out_dir}

# Where assetd keeps what it knows.  Not for version control.
state_dir: .assetd

# Where the sources are: each file goes to the same path below out_dir.  Where two mounts
# have the same path the first one wins, so a site's own files come before a theme's.
mounts:
{mounts}

# Paths that are no sources, as in .gitignore, or regular expressions between slashes.
# ignore: ["*.bak", "/^drafts\\\\//"]

# How many processes build at the same time; auto goes by the machine.
# workers: auto
"""


def write(folder: str) -> tuple[str, list[str]]:
    """Write an `assetd.yml` that fits *folder*; returns its path and the mounts it names.

    Makes the folder if it is not there, and `assets/` if it holds nothing to be built.

    Raises:
        UsageError: There is a configuration already, or none can be written.
    """
    for name in FILE_NAMES:
        if os.path.lexists(there := os.path.join(folder, name)):
            raise UsageError(f"{there} is there already: edit it, or remove it first")
    path = os.path.join(folder, FILE_NAMES[0])
    try:
        os.makedirs(folder, exist_ok=True)
        out_dir = _free(folder)
        mounts = _mounts(folder, os.path.join(folder, out_dir))
        if not mounts:
            mounts = ["assets"]
            os.makedirs(os.path.join(folder, "assets"), exist_ok=True)
        listed = "\n".join(f"  {_scalar(mount)}: {{}}" for mount in mounts)
        with open(path, "x", encoding="utf-8") as file:
            file.write(_TEXT.format(out_dir=out_dir, mounts=listed))
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    return path, mounts


def _free(folder: str) -> str:
    """A name for the output root that nobody has yet, or that of an empty folder."""
    numbered = (f"public{number}" for number in itertools.count(2))
    for name in itertools.chain(("public", "dist"), numbered):
        path = os.path.join(folder, name)
        if not os.path.lexists(path):
            return name
        if os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path):
            return name
    raise AssertionError("there is always another number")


def _mounts(folder: str, out_dir: str) -> list[str]:
    """The folders that look like sources, in order of precedence, none inside another."""
    taken: list[str] = []
    found = []
    own = os.path.realpath(folder)
    for name in (*_OWN, *_themes(folder)):
        real = os.path.realpath(os.path.join(folder, name))
        apart = not any(is_below(real, other) or is_below(other, real) for other in taken)
        fits = is_below(real, own) and not is_below(os.path.realpath(out_dir), real)
        if apart and fits and real != own and _holds_files(real):
            taken.append(real)
            found.append(name)
    return found


def _themes(folder: str) -> Iterator[str]:
    for top in _THEMES:
        yield f"{top}/assets"
        try:
            names = sorted(os.listdir(os.path.join(folder, top)))
        except OSError:
            continue
        if _PARTS.isdisjoint(names):
            for name in names:
                if name.isprintable() and not name.startswith("."):
                    yield f"{top}/{name}/assets"
                    yield f"{top}/{name}"
        else:
            yield top


def _holds_files(folder: str) -> bool:
    for _, folders, names in itertools.islice(os.walk(folder), _LOOKED_AT):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(not name.startswith(".") for name in names):
            return True
    return False


def _scalar(text: str) -> str:
    """*text* as YAML reads it back."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", text, re.ASCII)
    return text if plain else json.dumps(text, ensure_ascii=False)
