"""Run the measurements, print the tables, and write them.

    python -m tests.bench [--quick] [--out DIR] [--docs] [--only PART…]

Absolute times say more about the machine than about us: look at the ratios, and measure on a
machine that does nothing else.
"""

import argparse
import re
import shlex
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import contenders, floors, plots, saves, tables, trees, turns, wholes
from tests.bench.contenders import CONFIG, Contender, assetd
from tests.bench.figures import Findings, Times, percentile
from tests.bench.peers import ALL
from tests.bench.saves import Save

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

DART = "assetd with Dart Sass"
FLOOR = "the floor"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    """Turns that everybody gets."""
    each: int
    """Saves of a kind in each turn."""
    runs: int
    """Of what is a whole command."""
    sizes: tuple[int, ...]
    edits: int
    checkout_files: int
    idle_seconds: float
    lessc: int
    peers: tuple[Contender, ...]


FULL = Scale(5, 30, 5, (100, 1000, 10_000, 100_000, 1_000_000), 50, 20_000, 60.0, 200, ALL)
QUICK = Scale(1, 10, 1, (100, 1000, 10_000), 10, 1000, 10.0, 10, ())


class Bench:
    """One run: its trees, its scale and what it has found."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self.scale = scale
        self.findings = Findings()

    def tree(self, name: str, make: Callable[[Path], None]) -> Path:
        """A tree, made when it is first asked for; whoever builds it copies it."""
        root = self.folder / name
        if not root.exists():
            root.mkdir()
            make(root)
        return root

    @property
    def t1(self) -> Path:
        """10,000 files of 4 KB in 200 folders."""
        return self.tree("T1", lambda root: trees.plain(root, 10_000))

    @property
    def t2(self) -> Path:
        """Bootstrap 5, Bulma, Foundation."""
        return self.tree("T2", trees.libraries)

    @property
    def t3(self) -> Path:
        """1,000 Sass entries, 500 scripts, 500 styles, 3,000 plain files."""
        return self.tree("T3", trees.mixed)

    def enter(self, tree: str, original: Path, *more: Contender) -> list[turns.Entrant]:
        """assetd, its variants and the peers, each with a copy of the tree."""
        who = [assetd(), *more, *self.scale.peers]
        return turns.enter(who, tree, original, self.findings)

    def add_floor(self, save: Save, ms: Sequence[float], by: str = FLOOR) -> None:
        """Put a floor beside the contenders."""
        if ms:
            self.findings.times.append(Times(save.kind, save.name, by, list(ms)))

    # -- the parts ------------------------------------------------------------------------

    def save_plain(self) -> None:
        """A plain file of T1; the rows of an idle daemon."""
        save = saves.plain("d00000/f00.txt")
        bare: list[float] = []
        entrants = turns.enter([assetd()], "T1", self.t1, self.findings)
        found = Findings()
        turns.take(
            entrants,
            [save],
            found,
            rounds=self.scale.rounds,
            each=2 * self.scale.each,
            before_round=lambda: bare.extend(floors.wakes(self.folder / "wakes", 40)),
        )
        (ours,) = found.times
        floor = statistics.median(bare)
        copy = floors.copy_and_rename(self.folder / "wakes", 500)
        against = f"a raw inotify wake, a copy, a rename (these two alone: {copy:.3f} ms)"
        add = self.findings.add
        add(
            "save of a plain file of T1",
            "p50",
            ours.p50,
            floor=floor,
            against=against,
            limit=floor + 3.0,
            target="the floor + 3 ms",
        )
        add(
            "save of a plain file of T1",
            "p99",
            ours.p99,
            floor=percentile(bare, 0.99),
            against="the same at p99",
            limit=10.0,
            target="10 ms",
        )
        wholes.owner_memory(entrants[0].root, 10_000, self.findings)

    def saves_t3(self) -> None:
        """A plain file, an entry, a partial and a script of T3, against the peers."""
        kinds = [saves.plain(), saves.entry(), saves.partial(self.t3), saves.script()]
        plain, entry, partial, _ = kinds
        dart = assetd(CONFIG + "sass: {engine: dart}\n", DART)
        dart = contenders.limited(dart, {"entry"})
        entrants = self.enter("T3", self.t3, dart)
        compiles: list[float] = []
        darts: list[float] = []
        pairs: list[float] = []
        bare: list[float] = []
        assets = self.t3 / "assets"
        source = assets / entry.source
        dependents = [assets / f"{each}.scss" for each in trees.dependents(self.t3)]
        with floors.two_compilers() as compile_all:
            compile_all(dependents)

            def measure_floors() -> None:
                bare.extend(floors.wakes(self.folder / "wakes", 20))
                compiles.extend(floors.libsass(source, 40))
                darts.extend(floors.dart(source, 40))
                pairs.extend(compile_all(dependents) for _ in range(5))

            turns.take(
                entrants,
                kinds,
                self.findings,
                rounds=self.scale.rounds,
                each=self.scale.each,
                before_round=measure_floors,
            )
        self.add_floor(plain, bare)
        self.add_floor(entry, compiles)
        self.add_floor(entry, darts, "Dart Sass, warm, bare")
        self.add_floor(partial, pairs)
        self._against_compile(entry, "assetd", compiles, "LibSass in one process", 4.0, 12.0)
        self._against_compile(entry, DART, darts, "Dart Sass, warm", 5.0, None)
        ours, floor = self.findings.of("partial", "assetd"), statistics.median(pairs)
        assert ours is not None
        self.findings.add(
            f"save of {partial.name}",
            "to the last of them, p50",
            ours.p50,
            floor=floor,
            against="those compiles in two warm processes",
            limit=1.3 * floor,
            target="1.3 times the floor",
        )
        for save, factor in ((plain, 10.0), (entry, 5.0), (partial, 3.0), (kinds[3], 1.0)):
            self._against_peers(save, "assetd", factor)
        self._rest_of_t3(entrants[0].root, plain, entry)

    def _rest_of_t3(self, root: Path, plain: Save, entry: Save) -> None:
        wholes.phases(root, [plain, entry], self.scale.each, self.findings)
        wholes.rest(root, entry, self.scale.idle_seconds, self.findings)
        rounds = max(1, self.scale.rounds // 2)
        wholes.during_cold_build(self.t3, self.t2, entry, rounds, 10, self.findings)

    def saves_t2(self) -> None:
        """A partial of Bootstrap, with both engines."""
        save = saves.bootstrap(self.t2)
        dart = assetd(CONFIG + "sass: {engine: dart}\n", DART)
        entrants = self.enter("T2", self.t2, dart)
        bare: list[float] = []
        darts: list[float] = []
        source = self.t2 / "assets/bootstrap/bootstrap.scss"

        def measure_floors() -> None:
            bare.extend(floors.libsass(source, 5))
            darts.extend(floors.dart(source, 5))

        turns.take(
            entrants,
            [save],
            self.findings,
            rounds=self.scale.rounds,
            each=max(5, self.scale.each // 3),
            before_round=measure_floors,
        )
        self.add_floor(save, bare)
        self.add_floor(save, darts, "Dart Sass, warm, bare")
        best = None
        for who, times, what in ((("assetd"), bare, "LibSass"), (DART, darts, "Dart Sass, warm")):
            ours = self.findings.of(save.kind, who)
            if ours is None or not times:
                continue
            floor = statistics.median(times)
            self.findings.add(
                f"save of {save.name}",
                f"{who}, p50",
                ours.p50,
                floor=floor,
                against=f"the bare compile: {what}",
                limit=1.05 * floor,
                target="1.05 times the compile",
            )
            best = ours if best is None or ours.p50 < best.p50 else best
        if best is not None:
            self._against_peers(save, best.contender, 1.0)

    def save_less(self) -> None:
        """A Less entry, and a cold build of 200."""
        original = self.tree("less", trees.less)
        save = saves.less(original)
        bare: list[float] = []
        source = original / "assets/less/e000.less"
        if not floors.less(source, 1):
            self.findings.notes.append("Less is left out: run `assetd tools install`")
            return
        turns.take(
            turns.enter([assetd()], "less", original, self.findings),
            [save],
            self.findings,
            rounds=self.scale.rounds,
            each=self.scale.each,
            before_round=lambda: bare.extend(floors.less(source, 40)),
        )
        self.add_floor(save, bare)
        self._against_compile(save, "assetd", bare, "Less in a warm Node", 5.0, None)
        wholes.less_builds(original, self.scale.runs, self.scale.lessc, self.findings)

    def cold(self) -> None:
        """Builds from nothing, and with nothing to do."""
        for name, original in (("T1", self.t1), ("T2", self.t2), ("T3", self.t3)):
            peers = self.scale.peers
            if name == "T2" and not peers:
                # The floor of this row is a peer.
                peers = tuple(p for p in ALL if p.name == "inotifywait with ninja")
            wholes.cold_builds(original, name, peers, self.scale.runs, self.findings)

    def sizes(self) -> None:
        """What grows with the number of sources, and what must not."""
        scale = self.scale
        wholes.sizes(self.folder, scale.sizes, scale.runs, scale.edits, self.findings)

    def checkout(self) -> None:
        """Git writes many files at once."""
        runs = max(1, self.scale.runs // 2)
        wholes.checkout(self.folder, self.scale.checkout_files, runs, self.findings)

    # -- rows -----------------------------------------------------------------------------

    def _against_compile(
        self,
        save: Save,
        who: str,
        bare: Sequence[float],
        what: str,
        more_p50: float,
        more_p99: float | None,
    ) -> None:
        ours = self.findings.of(save.kind, who)
        if ours is None or not bare:
            self.findings.notes.append(f"a save of {save.name} by {who} is left out: no {what}")
            return
        floor = statistics.median(bare)
        shares = [("p50", ours.p50, more_p50)]
        shares += [] if more_p99 is None else [("p99", ours.p99, more_p99)]
        for share, value, more in shares:
            self.findings.add(
                f"save of {save.name}, {who}",
                share,
                value,
                floor=floor,
                against=f"the bare compile, p50: {what}",
                limit=floor + more,
                target=f"the compile + {more:g} ms",
            )

    def _against_peers(self, save: Save, who: str, factor: float) -> None:
        """The row that compares us with the best of the peers."""
        names = {peer.name for peer in self.scale.peers}
        theirs = [t for t in self.findings.times if t.kind == save.kind and t.contender in names]
        ours = self.findings.of(save.kind, who)
        if not theirs or ours is None:
            return
        best = min(theirs, key=lambda t: t.p50)
        self.findings.add(
            f"against the best peer: {save.name}",
            f"{who}, p50",
            ours.p50,
            floor=best.p50,
            against=best.contender,
            limit=best.p50 / factor,
            target="first" if factor == 1.0 else f"{factor:g} times faster",
        )


PARTS = ("save_plain", "saves_t3", "saves_t2", "save_less", "cold", "sizes", "checkout")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="floors and assetd, in two minutes")
    parser.add_argument("--out", metavar="DIR", default="build/bench", help="where files go")
    parser.add_argument("--docs", action="store_true", help="renew docs/performance.md too")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, help="turns that everybody gets, and runs")
    parser.add_argument("--each", type=int, help="saves of a kind in each turn")
    parser.add_argument("--most", type=int, metavar="N", help="no tree of more files")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    scale = _adapted(scale, arguments)
    # So that who is watching is ended too: they have sessions of their own.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    began, before = time.monotonic(), tables.machine()
    command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
    with contenders.memory() as folder:
        bench = Bench(folder, scale)
        for part in arguments.only:
            print(f"{part} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
            getattr(bench, part)()
            _clear(folder)
            # After each part: a run that is cut short has not been for nothing.
            text = tables.markdown(bench.findings, command, before)
            out = Path(arguments.out)
            out.mkdir(parents=True, exist_ok=True)
            (out / "bench.md").write_text(text)
            tables.write_json(out / "bench.json", bench.findings, command, before)
            _plot(out, bench.findings)
            if arguments.docs:
                _renew_docs(text, bench.findings)
    print(text)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)


def _renew_docs(text: str, findings: Findings) -> None:
    """Put the tables into the page about performance, and the plots beside it."""
    _plot(DOCS, findings)
    page = DOCS / "performance.md"
    fresh = f"<!-- measured -->\n\n{text}\n<!-- end of measured -->"
    old = re.compile("<!-- measured -->.*<!-- end of measured -->", re.DOTALL)
    page.write_text(old.sub(lambda _: fresh, page.read_text()))


def _adapted(scale: Scale, arguments: argparse.Namespace) -> Scale:
    if arguments.peers is not None:
        wanted = tuple(p for p in ALL if p.name in arguments.peers)
        scale = replace(scale, peers=wanted)
    if arguments.rounds is not None:
        scale = replace(scale, rounds=arguments.rounds, runs=arguments.rounds)
    if arguments.each is not None:
        scale = replace(scale, each=arguments.each, edits=arguments.each)
    if arguments.most is not None:
        sizes = tuple(n for n in scale.sizes if n <= arguments.most)
        files = min(scale.checkout_files, arguments.most // 5)
        scale = replace(scale, sizes=sizes, checkout_files=files)
    return scale


def _clear(folder: Path) -> None:
    """Give the memory of what was built back; the trees stay."""
    for path in folder.iterdir():
        if path.name not in {"T1", "T2", "T3"}:
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink()


def _plot(folder: Path, findings: Findings) -> None:
    (folder / "latency.svg").write_text(plots.latency(findings))
    (folder / "scaling.svg").write_text(plots.scaling(findings.scaling))


if __name__ == "__main__":
    main()
