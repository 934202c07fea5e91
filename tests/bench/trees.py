"""The trees that are measured, made from a seed: the same bytes on every machine."""

import random
from pathlib import Path

CONFIG = "mounts: [assets]\n"


def plain(root: Path, files: int, per_folder: int = 50, size: int = 4096) -> None:
    """A project of *files* plain files in folders of *per_folder*."""
    chance = random.Random(files)
    for number in range(files):
        folder = root / "assets" / f"d{number // per_folder:05}"
        if number % per_folder == 0:
            folder.mkdir(parents=True)
        (folder / f"f{number % per_folder:02}.txt").write_bytes(chance.randbytes(size))
    (root / "assetd.yml").write_text(CONFIG)


def mixed(root: Path, entries: int = 1000, partials: int = 50, plain_files: int = 3000) -> None:
    """Sass entries that import 3 of the partials each, scripts, styles and plain files."""
    chance = random.Random(3)
    assets = root / "assets"
    for folder in ("scss/parts", "js", "css", "files"):
        (assets / folder).mkdir(parents=True)
    for number in range(partials):
        text = f"$c{number}: hsl({number * 7 % 360}, 50%, 40%);\n"
        text += f"@mixin m{number} {{ color: $c{number}; padding: {number}px; }}\n"
        (assets / f"scss/parts/_p{number:02}.scss").write_text(text)
    for number in range(entries):
        used = sorted({number % partials, *chance.sample(range(partials), 2)})
        text = "".join(f'@import "parts/p{n:02}";\n' for n in used)
        text += "".join(f".e{number} .x{n} {{ @include m{n}; }}\n" for n in used)
        (assets / f"scss/e{number:04}.scss").write_text(text)
    for number in range(500):
        (assets / f"js/s{number:03}.js").write_text(f"var v{number} = {number};\n" * 40)
        (assets / f"css/s{number:03}.css").write_text(f".c{number} {{ top: {number}px }}\n" * 40)
    for number in range(plain_files):
        (assets / f"files/f{number:04}.txt").write_bytes(chance.randbytes(2048))
    (root / "assetd.yml").write_text(CONFIG)


def less(root: Path, entries: int = 200, partials: int = 20, workers: int = 2) -> None:
    """Less files such as a site has for its pages, each with 3 of the partials."""
    chance = random.Random(7)
    parts = root / "assets/less/parts"
    parts.mkdir(parents=True)
    for number in range(partials):
        text = f"@c{number}: hsl({number * 18 % 360}, 50%, 40%);\n"
        text += f".m{number}(@w) {{ color: @c{number}; padding: (@w * {number + 1}); "
        text += "&:hover { color: darken(@c, 10%); } }\n".replace("@c", f"@c{number}")
        (parts / f"_p{number:02}.less").write_text(text)
    for number in range(entries):
        used = sorted({number % partials, *chance.sample(range(partials), 2)})
        text = "".join(f'@import "parts/_p{n:02}";\n' for n in used)
        for block in range(5):
            text += f".e{number}-{block} {{\n"
            text += "".join(f"  .x{n} {{ .m{n}({block}px); }}\n" for n in used)
            text += f"  width: ~'calc(100% - {block}px)';\n}}\n"
        (root / f"assets/less/e{number:03}.less").write_text(text)
    (root / "assetd.yml").write_text(f"{CONFIG}workers: {workers}\n")
