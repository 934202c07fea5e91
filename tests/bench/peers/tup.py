"""tup with sassc, watching by its own monitor.  Works on a disk: it is blind in `/dev/shm`."""

import subprocess
from pathlib import Path

from tests.bench.contenders import Contender, needs, run, start


def set_up(root: Path) -> None:
    """Write a `Tupfile` that says one rule for each folder, and make its database."""
    lines = []
    assets = root / "assets"
    for folder in sorted({path.parent for path in assets.rglob("*") if path.is_file()}):
        source = folder.relative_to(root)
        target = Path("out", *source.parts[1:])
        suffixes = {p.suffix for p in folder.iterdir() if p.is_file()}
        lines += [
            f": foreach {source}/*{suffix} |> cp %f %o |> {target}/%b\n"
            for suffix in sorted(suffixes - {".scss", ".sass"})
        ]
        for path in sorted(folder.glob("*.s[ac]ss")):
            if not path.name.startswith("_"):
                css = f"{target}/{path.stem}.css"
                lines.append(f": {path.relative_to(root)} |> sassc %f %o |> {css}\n")
    (root / "Tupfile").write_text("".join(lines))
    (root / "Tuprules.tup").write_text("")
    run(root, "tup", "init", "--force")
    (root / ".tup/options").write_text("[updater]\nnum_jobs=2\n")


def build(root: Path) -> None:
    """What is out of date, two at a time."""
    run(root, "tup", "-j2")


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change."""
    build(root)
    return start(root, "tup", "monitor", "-f", "-a")


def stop(root: Path) -> None:
    """End the monitor, and unmount what it looks through."""
    subprocess.run(["tup", "stop"], cwd=root, capture_output=True, check=False)
    mount = root / ".tup/mnt"
    subprocess.run(["fusermount3", "-u", "-z", mount], capture_output=True, check=False)


PEER = Contender(
    "tup",
    needs(
        ("tup", "apt-get install tup"),
        ("fusermount3", "apt-get install fuse3"),
        ("sassc", "apt-get install sassc"),
    ),
    frozenset({"T2", "T3"}),
    set_up,
    watch,
    build,
    stop=stop,
    shuns="/dev",  # to tup all below it is a device: its monitor sees nothing
)
