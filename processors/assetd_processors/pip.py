"""Tools that come as packages of Python: which version is installed."""

import os
import sys

from assetd.processor import Tool


def tool(package: str, cure: str) -> Tool:
    """*package* as it is installed, without importing any of it.

    Args:
        package: As its folder of metadata is called.
        cure: What to type where it is not there.
    """
    return Tool(package, _version(package), cure)


def _version(package: str) -> str | None:
    # A folder's name has it. `importlib.metadata` takes longer to import than the rest of a
    # build with nothing to do.
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix == ".dist-info" and stem.lower().startswith(f"{package.lower()}-"):
                return stem.partition("-")[2]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
