"""Which file is saved again and again, and what must be in which outputs then."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import trees
from tests.bench.eye import Eye

PATIENCE_SECONDS = 60.0


def mark(number: int) -> str:
    """A name that is in the outputs of one save, and of no other."""
    return f"saved-{number:06}"


@dataclass(frozen=True, slots=True)
class Save:
    """A file of a project, and what comes of it."""

    kind: str
    name: str
    source: str
    """From `assets`."""
    outputs: tuple[str, ...]
    """From the folder of the outputs."""
    text: Callable[[int], str]
    """Another one for each number, with its `mark`."""
    exact: bool = False
    """Whether the output is the source, to the byte; else the mark must be in it."""

    def folders(self, out: Path) -> set[Path]:
        """Where the outputs will be."""
        return {(out / output).parent for output in self.outputs}

    def once(self, assets: Path, out: Path, eye: Eye, number: int) -> float:
        """Milliseconds from the `write` of the source until the last output is right.

        Raises:
            TimeoutError: It never was.
        """
        content = self.text(number).encode()
        wanted = mark(number).encode()

        def is_right(found: bytes) -> bool:
            return found == content if self.exact else wanted in found

        fd = os.open(assets / self.source, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        began = time.perf_counter()
        os.write(fd, content)
        os.close(fd)
        seen = eye.wait({out / o: is_right for o in self.outputs}, PATIENCE_SECONDS)
        return (seen - began) * 1000


def plain(source: str = "files/f0000.txt") -> Save:
    """A plain file of 4 KB."""
    return Save(
        "plain",
        "a plain file",
        source,
        (source,),
        lambda n: mark(n).ljust(4095, ".") + "\n",
        exact=True,
    )


def entry() -> Save:
    """An entry of T3."""
    return Save(
        "entry",
        "a T3 entry",
        "scss/e0001.scss",
        ("scss/e0001.css",),
        lambda n: trees.entry(1, [3, 7, 11]) + f".{mark(n)} {{ top: 0; }}\n",
    )


def partial(root: Path) -> Save:
    """The partial of T3 with many dependents; *root* is a project with that tree."""
    outputs = tuple(f"{each}.css" for each in trees.dependents(root))
    return Save(
        "partial",
        f"a partial with {len(outputs)} dependents",
        f"scss/parts/_p{trees.MEASURED_PARTIAL:02}.scss",
        outputs,
        lambda n: trees.partial(trees.MEASURED_PARTIAL, mark(n)),
    )


def script() -> Save:
    """A script of T3."""
    return Save(
        "script",
        "one JavaScript file",
        "js/s000.js",
        ("js/s000.js",),
        lambda n: f"var v0 = {n};\n" * 40 + f"/*! {mark(n)} */\n",
    )


def bootstrap(root: Path) -> Save:
    """A partial of Bootstrap that its main entry imports; *root* is a project with T2."""
    text = (root / "assets/bootstrap/_close.scss").read_text()
    return Save(
        "bootstrap",
        "a Bootstrap partial",
        "bootstrap/_close.scss",
        ("bootstrap/bootstrap.css",),
        lambda n: f"{text}\n.{mark(n)} {{ top: 0; }}\n",
    )


def less(root: Path) -> Save:
    """A Less entry; *root* is a project with that tree."""
    text = (root / "assets/less/e000.less").read_text()
    return Save(
        "less",
        "a Less entry",
        "less/e000.less",
        ("less/e000.css",),
        lambda n: f"{text}\n.{mark(n)} {{ top: 0; }}\n",
    )
