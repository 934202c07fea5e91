"""The trees that are measured, made from a seed: the same bytes on every machine.

Each function fills `assets` in the folder of a project; what builds it is set up elsewhere.
"""

import random
import shutil
from pathlib import Path

from tests.bench import npm

MEASURED_PARTIAL = 0
"""The partial of T3 that is saved."""
DEPENDENTS = 58
"""How many entries of T3 import it."""


def plain(root: Path, files: int, per_folder: int = 50, size: int = 4096) -> None:
    """T1 and S: *files* plain files in folders of *per_folder*."""
    chance = random.Random(files)
    for number in range(files):
        folder = root / "assets" / f"d{number // per_folder:05}"
        if number % per_folder == 0:
            folder.mkdir(parents=True)
        (folder / f"f{number % per_folder:02}.txt").write_bytes(chance.randbytes(size))


def small(root: Path, files: int) -> None:
    """S: *files* plain files of 100 bytes, 100 in a folder."""
    plain(root, files, per_folder=100, size=100)


def libraries(root: Path) -> None:
    """T2: Bootstrap 5, Bulma and Foundation, with the entries that they come with.

    Raises:
        RuntimeError: npm cannot bring them.
    """
    packages = npm.packages(npm.LIBRARIES)
    if packages is None:
        raise RuntimeError("npm is missing: apt-get install npm")
    assets = root / "assets"
    shutil.copytree(packages / "bootstrap-5/scss", assets / "bootstrap")
    shutil.rmtree(assets / "bootstrap/tests", ignore_errors=True)
    shutil.copytree(packages / "bulma/sass", assets / "bulma/sass")
    shutil.copytree(packages / "foundation-sites/scss", assets / "foundation/scss")
    shutil.copytree(packages / "foundation-sites/_vendor", assets / "foundation/_vendor")
    # As partials, which they are: they are there for one entry alone.
    for folder in (assets / "bulma", assets / "foundation"):
        for path in sorted(folder.rglob("*.s[ac]ss")):
            if not path.name.startswith("_"):
                path.rename(path.with_name(f"_{path.name}"))
    shutil.copy(packages / "bulma/bulma.sass", assets / "bulma")
    (assets / "foundation/site.scss").write_text(
        "@import 'scss/foundation';\n@include foundation-everything;\n"
    )
    for path in assets.rglob("*"):
        if path.is_file() and path.suffix not in {".scss", ".sass"}:
            path.unlink()


def mixed(
    root: Path, entries: int = 1000, partials: int = 50, plain_files: int = 3000, twist: int = 0
) -> None:
    """T3: Sass entries that import 3 of the partials each, scripts, styles and plain files.

    Args:
        root: Of the project.
        entries: How many; half as many scripts, and styles.
        partials: How many.
        plain_files: How many.
        twist: Another number makes another content for each file but the partials.
    """
    chance = random.Random(3)
    assets = root / "assets"
    for folder in ("scss/parts", "js", "css", "files"):
        (assets / folder).mkdir(parents=True, exist_ok=True)
    for number in range(partials):
        (assets / f"scss/parts/_p{number:02}.scss").write_text(partial(number))
    # So many import the one that is measured; the others take from the rest.
    first = {round(n * entries / DEPENDENTS) for n in range(DEPENDENTS)}
    rest = [n for n in range(partials) if n != MEASURED_PARTIAL]
    for number in range(entries):
        used = chance.sample(rest, 3)
        if number in first:
            used[0] = MEASURED_PARTIAL
        (assets / f"scss/e{number:04}.scss").write_text(entry(number, sorted(used), twist))
    for number in range(entries // 2):
        script = f"var v{number} = {number + twist};\n" * 40
        (assets / f"js/s{number:03}.js").write_text(script)
        style = f".c{number} {{ top: {number + twist}px }}\n" * 40
        (assets / f"css/s{number:03}.css").write_text(style)
    chance = random.Random(twist)
    for number in range(plain_files):
        (assets / f"files/f{number:04}.txt").write_bytes(chance.randbytes(2048))


def partial(number: int, mark: str = "x") -> str:
    """The text of a partial of T3; *mark* is a class in each output that comes of it.

    As much as a component of a site has: LibSass takes some 2 ms for an entry with three.
    """
    n = number
    return f"""\
$c{n}: hsl({n * 7 % 360}, 50%, 40%) !default;
$sizes{n}: (xs: {n + 1}px, sm: {n + 2}px, md: {n + 4}px, lg: {n + 8}px, xl: {n + 16}px);
@function shade{n}($level) {{
  @return mix(black, $c{n}, $level * 10%);
}}
@mixin m{n} {{
  color: $c{n};
  padding: {n}px;
  &.{mark} {{ top: 0; }}
  @each $name, $size in $sizes{n} {{
    &-#{{$name}} {{
      padding: $size ($size * 2);
      border: 1px solid shade{n}(2);
      &:hover, &:focus {{ background: lighten($c{n}, 10%); color: darken($c{n}, 20%); }}
      &[disabled] {{ opacity: .5; background: transparentize($c{n}, .3); }}
    }}
  }}
  @for $level from 1 through 6 {{
    .level-#{{$level}} & {{ border-color: shade{n}($level); width: percentage($level / 6); }}
  }}
}}
"""


def entry(number: int, used: list[int], twist: int = 0) -> str:
    """The text of an entry of T3."""
    text = "".join(f'@import "parts/p{n:02}";\n' for n in used)
    text += "".join(f".e{number} .x{n} {{ @include m{n}; }}\n" for n in used)
    return text + (f".t{twist} {{ top: 0; }}\n" if twist else "")


def dependents(root: Path) -> list[str]:
    """The entries of T3 that import the partial that is saved, without suffix, from `assets`."""
    wanted = f'"parts/p{MEASURED_PARTIAL:02}"'
    files = sorted((root / "assets/scss").glob("e*.scss"))
    return [f"scss/{file.stem}" for file in files if wanted in file.read_text()]


def less(root: Path, entries: int = 200, partials: int = 20) -> None:
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
