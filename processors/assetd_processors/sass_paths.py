"""Where a style sheet's imports lie, and what its files are called in what is made of it."""

import os
from collections.abc import Sequence
from urllib.parse import quote

from assetd.processor import Step


def load_paths(step: Step) -> list[str]:
    """The option `load_paths`, absolute."""
    return [
        os.path.normpath(os.path.join(step.project, path)) for path in step.options["load_paths"]
    ]


def stable_name(step: Step, path: str, load_paths: Sequence[str]) -> str:
    """A name for *path* that is the same on another machine."""
    for folder in (os.fspath(step.project), os.fspath(step.mount), *load_paths):
        name = os.path.relpath(path, folder)
        if not name.startswith("../"):
            return name
    return os.path.basename(path)


def url(path: str) -> str:
    """The path as a source map and its comment have it."""
    return quote(os.fsencode(path))
