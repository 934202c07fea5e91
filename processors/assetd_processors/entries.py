"""Globs that say which files of a mount a bundler starts from."""

import functools
import re

from assetd.processor import Options


def is_entry(path: str, options: Options) -> bool:
    """Whether one of the globs in the option `entries` is about *path*.

    `*` and `?` stay in one folder, `**/` stands for any number of them.
    """
    return any(_pattern(glob).fullmatch(path) for glob in options["entries"])


@functools.cache
def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob.removeprefix("./").removeprefix("/"))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts), re.DOTALL)
