"""While `assetd run` is on: real editors' saves, real folders, git, and a daemon that keeps up.

Every scenario ends with `sync`, and most with a comparison with a clean build.
"""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assetd.errors import DeadlineError, NotRunningError
from assetd.model import Entry, EntryState, NodeState
from assetd.record import Reader
from assetd.testing import Daemon, Site, wait_for

PLAIN = "mounts: [assets]\nworkers: 1\n"
LAYERS = "mounts: [assets, theme]\nworkers: 1\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with the mount `assets`."""
    (tmp_path / "site").mkdir()
    return Site(tmp_path / "site", PLAIN)


@pytest.fixture
def layers(site: Site) -> Site:
    """A project with the mount `assets` over the mount `theme`."""
    (site.root / "theme").mkdir()
    site.write("assetd.yml", LAYERS)
    return site


def entries(site: Site) -> dict[str, Entry]:
    """What the record holds, by place."""
    reader = Reader(os.fspath(site.root / ".assetd/record.sqlite"))
    with contextlib.closing(reader):
        return {f"{e.source.mount}/{e.source.path}": e for e in reader.entries()}


def how(entry: Entry) -> str:
    """How the last look at a source ended."""
    if entry.state is not EntryState.OK:
        return entry.state.value
    states = {node.state for node in entry.nodes}
    return "built" if NodeState.BUILT in states else "cached" if states else "nothing"


def after(site: Site, daemon: Daemon, act: Callable[[], object]) -> dict[str, str]:
    """What *act* makes the daemon do: each source that was not left as it was, and how."""
    daemon.sync()
    before = entries(site)
    act()
    daemon.sync()
    now = entries(site)
    found = {
        place: how(entry)
        for place, entry in now.items()
        if place not in before or before[place].batch != entry.batch
    }
    return found | dict.fromkeys(before.keys() - now.keys(), "gone")


def times_built(daemon: Daemon, place: str) -> int:
    """How often a save of a source has been built, by the log."""
    return len(re.findall(rf" built .*source={re.escape(place)}( |$)", daemon.log, re.MULTILINE))


def assert_clean(site: Site) -> None:
    """The outputs are those of a build that knows nothing of before."""
    assert site.outputs() == site.clean_build()


def shell(command: str, folder: Path) -> None:
    """Run a command as a person would."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["sh", "-ec", command], cwd=folder, capture_output=True, text=True, check=False, env=clean
    )
    assert done.returncode == 0, done.stderr


# --- what is rebuilt ------------------------------------------------------------------------


def test_a_partial_rebuilds_exactly_the_files_that_import_it(site: Site) -> None:
    """Straight or through another partial; whoever does not import it is not even looked at."""
    site.write("assets/_deep.scss", "$deep: 1px;")
    site.write("assets/_near.scss", "@import 'deep'; $near: 1px;")
    site.write("assets/straight.scss", "@import 'deep'; a { b: $deep }")
    site.write("assets/through.scss", "@import 'near'; a { b: $near + $deep }")
    site.write("assets/none.scss", "a { b: c }")
    site.write("assets/plain.txt", "text")
    with site.daemon() as daemon:
        both = {"assets/straight.scss": "built", "assets/through.scss": "built"}
        edit = lambda: site.write("assets/_deep.scss", "$deep: 2px;")  # noqa: E731
        assert both == after(site, daemon, edit)
        assert daemon.status()["last_batch"]["built"] == 2
        edit = lambda: site.write("assets/_near.scss", "@import 'deep'; $near: 3px;")  # noqa: E731
        assert after(site, daemon, edit) == {"assets/through.scss": "built"}
        assert times_built(daemon, "assets/straight.scss") == 1
        assert times_built(daemon, "assets/through.scss") == 2
        assert times_built(daemon, "assets/none.scss") == 0
        assert_clean(site)


def test_a_touch_rebuilds_nothing(site: Site) -> None:
    """A stamp that moved over content that did not is no change, of sources and of partials."""
    site.write("assets/_part.scss", "$a: b;")
    site.write("assets/site.scss", "@import 'part'; a { b: $a }")
    site.write("assets/plain.txt", "text")
    with site.daemon() as daemon:
        batch = daemon.status()["last_batch"]["id"]

        def touch() -> None:
            for name in ("_part.scss", "site.scss", "plain.txt"):
                os.utime(site.root / "assets" / name)

        assert after(site, daemon, touch) == {}
        assert after(site, daemon, lambda: site.write("assets/_part.scss", "$a: b;")) == {}
        assert daemon.status()["last_batch"]["id"] == batch
        assert " built  " not in daemon.log


def test_a_partial_that_would_have_been_found_first_rebuilds_those_it_now_serves(
    site: Site,
) -> None:
    """A path that was looked for in vain is a dependency too."""
    site.write("assetd.yml", PLAIN + "sass: {load_paths: [first, second]}\n")
    (site.root / "first").mkdir()
    site.write("second/_vars.scss", "$c: second;")
    site.write("assets/served.scss", "@import 'vars'; a { b: $c }")
    site.write("assets/beside/_vars.scss", "$c: beside;")
    site.write("assets/beside/own.scss", "@import 'vars'; a { b: $c }")
    with site.daemon() as daemon:
        assert after(site, daemon, lambda: site.write("first/_vars.scss", "$c: first;")) == {
            "assets/served.scss": "built"
        }
        assert "first" in (site.output("served.css") or "")
        assert after(site, daemon, lambda: site.remove("first/_vars.scss")) == {
            "assets/served.scss": "cached"
        }
        assert "second" in (site.output("served.css") or "")
        assert_clean(site)


def test_a_new_part_of_a_glob_is_joined(site: Site) -> None:
    """A list of names is a dependency: parts that come, go or move count."""
    site.write("assets/app.js.concat", "files: ['parts/**/*.js']\n")
    site.write("assets/parts/a.js", "a")
    with site.daemon() as daemon:
        site.write("assets/parts/b.js", "b")
        daemon.sync()
        assert site.output("app.js") == "a\nb"
        site.write("assets/parts/deep/er/c.js", "c")
        daemon.sync()
        assert site.output("app.js") == "a\nb\nc"
        (site.root / "assets/parts/a.js").rename(site.root / "assets/parts/z.js")
        daemon.sync()
        assert site.output("app.js") == "b\nc\na"
        site.remove("assets/parts/deep")
        daemon.sync()
        assert site.output("app.js") == "b\na"
        assert_clean(site)


@pytest.mark.parametrize("backend", ["inotify", "polling"])
def test_a_dependency_outside_all_mounts_is_watched(site: Site, backend: str) -> None:
    """Also if its folder appears only later, goes, and comes back."""
    site.write(
        "assetd.yml",
        PLAIN
        + "sass: {load_paths: [vendor/scss]}\n"
        + f"watch: {{backend: {backend}, interval: 50ms}}\n",
    )
    site.write("assets/site.scss", "@import 'lib'; a { b: $c }")
    with site.daemon() as daemon:
        assert [e["source"] for e in daemon.sync()] == ["site.scss"]
        (site.root / "vendor/scss").mkdir(parents=True)
        daemon.sync()
        for value in ("one", "two"):
            site.write("vendor/scss/_lib.scss", f"$c: {value};")
            assert daemon.sync() == []
            assert value in (site.output("site.css") or "")
        shutil.move(site.root / "vendor", site.root / "away")
        assert [e["source"] for e in daemon.sync()] == ["site.scss"]
        assert "two" in (site.output("site.css") or "")
        site.write("vendor/scss/_lib.scss", "$c: three;")
        assert daemon.sync() == []
        site.write("vendor/scss/_lib.scss", "$c: four;")
        assert daemon.sync() == []
        assert "four" in (site.output("site.css") or "")


@pytest.mark.parametrize("backend", ["inotify", "polling"])
def test_a_dependency_that_is_ignored_as_a_source_is_watched(site: Site, backend: str) -> None:
    """A file, or a folder of a mount that is not scanned: whoever depends on it hears of it."""
    site.write(
        "assetd.yml",
        PLAIN
        + "ignore: [lib, part.txt, '*.inc']\n"
        + f"watch: {{backend: {backend}, interval: 50ms}}\n",
    )
    site.write("assets/site.scss", "@import 'lib/deep/vars'; a { b: $c }")
    site.write("assets/all.txt.concat", "files: [part.txt, 'lib/**/*.txt', '*.inc']")
    for turn in range(2):
        site.write("assets/lib/deep/_vars.scss", "$c: zero;")
        site.write("assets/part.txt", "zero")
        with site.daemon() as daemon:
            assert daemon.sync() == []
            for value in ("one", "two"):
                site.write("assets/lib/deep/_vars.scss", f"$c: {value};")
                site.write("assets/part.txt", value)
                assert daemon.sync() == []
                assert value in (site.output("site.css") or "")
                assert value in (site.output("all.txt") or "")
            site.write("assets/lib/new/er/b.txt", "a new part")
            site.write("assets/c.inc", "another one")
            assert daemon.sync() == []
            assert "a new part" in (site.output("all.txt") or "")
            assert "another one" in (site.output("all.txt") or "")
            (site.root / "assets/lib").rename(site.root / f"away{turn}")
            assert {e["source"] for e in daemon.sync()} == {"site.scss"}
            (site.root / f"away{turn}").rename(site.root / "assets/lib")
            assert daemon.sync() == []
            site.write("assets/lib/deep/_vars.scss", "$c: three;")
            assert daemon.sync() == []
            assert "three" in (site.output("site.css") or "")
            site.remove("assets/lib")
            site.remove("assets/c.inc")
            assert {e["source"] for e in daemon.sync()} == {"site.scss"}
            assert site.output("all.txt") == "two"
            assert set(site.outputs()) == {"site.css", "all.txt"}


def test_a_glob_outside_all_mounts_hears_of_folders_at_any_depth(site: Site) -> None:
    """No mount's scan watches them, so whoever depends on the pattern has them watched."""
    site.write("assets/app.js.concat", "files: ['../vendor/**/*.js']\n")
    site.write("vendor/a.js", "a")
    with site.daemon() as daemon:
        site.write("vendor/deep/b.js", "b")
        daemon.sync()
        assert site.output("app.js") == "a\nb"
        site.write("vendor/deep/er/c.js", "c")
        daemon.sync()
        assert site.output("app.js") == "a\nb\nc"
        site.write("vendor/deep/d.js", "d")
        site.write("vendor/deep/b.js", "edited")
        daemon.sync()
        assert site.output("app.js") == "a\nedited\nd\nc"
        (site.root / "vendor/deep").rename(site.root / "away")
        daemon.sync()
        assert site.output("app.js") == "a"


def test_a_folder_that_is_known_by_two_names_is_heard_under_both(site: Site) -> None:
    """The kernel has one watch for a folder, however many links lead to it."""
    site.write("assetd.yml", PLAIN + "sass: {load_paths: [lib]}\n")
    site.write("assets/scss/_vars.scss", "$c: one;")
    site.write("assets/scss/own.txt", "one")
    site.write("assets/site.scss", "@import 'vars'; a { b: $c }")
    (site.root / "lib").symlink_to("assets/scss")
    with site.daemon() as daemon:
        for value in ("two", "three"):
            site.write("assets/scss/own.txt", value)
            site.write("assets/scss/_vars.scss", f"$c: {value};")
            daemon.sync()
            assert site.output("scss/own.txt") == value
            assert value in (site.output("site.css") or "")


@pytest.mark.parametrize(("name", "output"), [("a.txt", "a.txt"), ("a.scss", "a.css")])
def test_a_file_that_becomes_a_link_to_the_same_content_follows_it(
    site: Site, name: str, output: str
) -> None:
    """No byte has changed, and no result differs, but where the next edit comes from does."""
    before, after = "a { b: c }\n", "a { b: d }\n"
    site.write(f"assets/{name}", before)
    site.write("shared/real", before)
    with site.daemon() as daemon:
        site.remove(f"assets/{name}")
        (site.root / f"assets/{name}").symlink_to("../shared/real")
        daemon.sync()
        site.write("shared/real", after)
        daemon.sync()
        assert "b: d" in (site.output(output) or "")


def test_a_link_to_a_file_is_a_source_with_the_content_of_its_target(site: Site) -> None:
    """Links to files are followed; an edit of the target counts, wherever it is."""
    site.write("shared/real.txt", "one")
    site.write("shared/_real.scss", "$c: one;")
    site.write("assets/site.scss", "@import 'link'; a { b: $c }")
    (site.root / "assets/link.txt").symlink_to("../shared/real.txt")
    (site.root / "assets/_link.scss").symlink_to("../shared/_real.scss")
    with site.daemon() as daemon:
        assert site.output("link.txt") == "one"
        site.write("shared/real.txt", "two")
        site.write("shared/_real.scss", "$c: two;")
        daemon.sync()
        assert site.output("link.txt") == "two"
        assert "two" in (site.output("site.css") or "")
        site.write("shared/other.txt", "three")
        (site.root / "assets/link.txt").unlink()
        (site.root / "assets/link.txt").symlink_to("../shared/other.txt")
        daemon.sync()
        assert site.output("link.txt") == "three"
        site.remove("assets/link.txt")
        daemon.sync()
        assert site.output("link.txt") is None
        assert (site.root / "shared/other.txt").exists()


def test_an_include_only_file_is_no_source(site: Site) -> None:
    """`_x.scss` has no output, comes or goes, and becomes a source when it is renamed."""
    site.write("assets/_part.scss", "a { b: c }")
    site.write("assets/main_theme.scss", "a { b: c }")
    with site.daemon() as daemon:
        assert set(site.outputs()) == {"main_theme.css"}
        (site.root / "assets/_part.scss").rename(site.root / "assets/part.scss")
        daemon.sync()
        assert set(site.outputs()) == {"main_theme.css", "part.css"}
        (site.root / "assets/part.scss").rename(site.root / "assets/_part.scss")
        daemon.sync()
        assert set(site.outputs()) == {"main_theme.css"}


# --- deleting and moving --------------------------------------------------------------------


def test_a_deleted_or_renamed_source_takes_exactly_its_outputs_along(site: Site) -> None:
    """And the folders that we made, when they are empty; not one that somebody else made."""
    site.write("assetd.yml", PLAIN + "sass: {source_map: true}\n")
    for folder in ("one", "two/deep"):
        site.write(f"assets/{folder}/site.scss", "a { b: c }")
    site.write("assets/two/stays.txt", "text")
    site.write("assets/own/file.txt", "text")
    (site.root / "public/own").mkdir(parents=True)
    with site.daemon() as daemon:
        assert set(site.outputs()) == {
            *("one/site.css", "one/site.css.map", "two/deep/site.css", "two/deep/site.css.map"),
            *("two/stays.txt", "own/file.txt"),
        }
        site.remove("assets/one/site.scss")
        site.remove("assets/own/file.txt")
        daemon.sync()
        assert not (site.root / "public/one").exists()
        assert (site.root / "public/own").is_dir()
        (site.root / "assets/two/deep").rename(site.root / "assets/moved")
        daemon.sync()
        assert set(site.outputs()) == {"moved/site.css", "moved/site.css.map", "two/stays.txt"}
        assert not (site.root / "public/two/deep").exists()
        site.remove("assets/moved")
        daemon.sync()
        assert set(site.outputs()) == {"two/stays.txt"}
        assert {p.name for p in (site.root / "public").iterdir()} == {"own", "two"}


def test_a_folder_moves_in_from_outside_and_out_again(site: Site) -> None:
    """Its files make no events of their own: the folder is scanned, and watched from then on."""
    site.write("outside/a.txt", "a")
    site.write("outside/in/b.scss", "a { b: c }")
    with site.daemon() as daemon:
        (site.root / "outside").rename(site.root / "assets/inside")
        daemon.sync()
        assert set(site.outputs()) == {"inside/a.txt", "inside/in/b.css"}
        site.write("assets/inside/in/c.txt", "c")
        daemon.sync()
        assert site.output("inside/in/c.txt") == "c"
        (site.root / "assets/inside").rename(site.root / "outside")
        daemon.sync()
        assert site.outputs() == {}
        site.write("outside/in/c.txt", "never seen")
        daemon.sync()
        assert site.outputs() == {}


def test_folders_that_swap_their_names_swap_their_outputs(site: Site) -> None:
    """A watch goes on with the folder and not with its name, so names are looked at anew."""
    site.write("assets/a/x.txt", "from a")
    site.write("assets/b/x.txt", "from b")
    with site.daemon() as daemon:
        for _ in range(3):
            shell("mv a c; mv b a; mv c b", site.root / "assets")
            daemon.sync()
            assert_clean(site)
            site.write("assets/a/y.txt", f"{time.monotonic()}")
            site.write("assets/b/x.txt", f"{time.monotonic()}")
            daemon.sync()
            assert_clean(site)


@pytest.mark.parametrize("how_gone", ["deleted", "moved away"])
@pytest.mark.parametrize("which", ["a folder", "the mount", "above the mount"])
def test_what_is_watched_may_go_and_come_back(site: Site, how_gone: str, which: str) -> None:
    """A watch ends with its folder; the next folder of that name is watched again."""
    site.write("assetd.yml", "mounts: [far/off/there/assets]\nworkers: 1\n")
    mount = "far/off/there/assets"
    site.write(f"{mount}/sub/x.txt", "one")
    gone = {"a folder": f"{mount}/sub", "the mount": mount, "above the mount": "far/off"}[which]
    with site.daemon() as daemon:
        for turn in range(2):
            if how_gone == "deleted":
                site.remove(gone)
            else:
                (site.root / gone).rename(site.root / f"away{turn}")
            daemon.sync()
            assert site.outputs() == {}
            site.write(f"{mount}/sub/x.txt", "two")
            daemon.sync()
            assert site.output("sub/x.txt") == "two"
            site.write(f"{mount}/sub/x.txt", f"three {turn}")
            site.write(f"{mount}/sub/y/z.txt", "new")
            daemon.sync()
            assert site.output("sub/x.txt") == f"three {turn}"
            assert site.output("sub/y/z.txt") == "new"


# --- mounts as layers -----------------------------------------------------------------------


def test_an_override_of_the_same_path_swaps_the_output_both_ways(layers: Site) -> None:
    """The first mount wins while it has the path, whichever came first."""
    layers.write("theme/site.css", "theme")
    layers.write("theme/other.css", "other")
    with layers.daemon() as daemon:
        for value in ("mine", "mine again"):
            found = after(layers, daemon, lambda v=value: layers.write("assets/site.css", v))  # type: ignore[misc]
            assert found == {"assets/site.css": "built", "theme/site.css": "overridden"}
            assert layers.output("site.css") == value
            assert daemon.status()["overridden"] == 1
            found = after(layers, daemon, lambda: layers.remove("assets/site.css"))
            assert found == {"assets/site.css": "gone", "theme/site.css": "built"}
            assert layers.output("site.css") == "theme"
            assert daemon.status()["overridden"] == 0
        assert daemon.status()["outputs"] == 2
        assert_clean(layers)


def test_an_override_of_the_same_output_swaps_it_both_ways(layers: Site) -> None:
    """What counts is what a source makes, not only what it is called."""
    layers.write("theme/site.scss", "a { b: theme }")
    with layers.daemon() as daemon:
        layers.write("assets/site.css", "mine")
        daemon.sync()
        assert layers.output("site.css") == "mine"
        (layers.root / "assets/site.css").rename(layers.root / "assets/else.css")
        daemon.sync()
        assert "theme" in (layers.output("site.css") or "")
        assert set(layers.outputs()) == {"site.css", "else.css"}
        layers.write("assets/site.scss", "a { b: mine }")
        daemon.sync()
        layers.write("assets/site.scss", "a { b: $missing }")
        assert [e["mount"] for e in daemon.sync()] == ["assets"]
        assert "mine" in (layers.output("site.css") or "")
        layers.remove("assets/site.scss")
        assert daemon.sync() == []
        assert_clean(layers)


def test_a_theme_folder_is_overridden_file_by_file(layers: Site) -> None:
    """A folder that moves over the theme's takes over what it has, and gives it back."""
    for name in ("a", "b", "c"):
        layers.write(f"theme/css/{name}.css", f"theme {name}")
    layers.write("draft/a.css", "mine a")
    layers.write("draft/d.css", "mine d")
    with layers.daemon() as daemon:
        (layers.root / "draft").rename(layers.root / "assets/css")
        daemon.sync()
        assert_clean(layers)
        assert layers.output("css/a.css") == "mine a"
        layers.write("theme/css/a.css", "theme a, edited while it is overridden")
        daemon.sync()
        assert layers.output("css/a.css") == "mine a"
        (layers.root / "assets/css").rename(layers.root / "draft")
        daemon.sync()
        assert set(layers.outputs()) == {"css/a.css", "css/b.css", "css/c.css"}
        assert layers.output("css/a.css") == "theme a, edited while it is overridden"
        assert_clean(layers)


def test_two_sources_of_a_mount_that_claim_one_output_are_a_conflict(site: Site) -> None:
    """Neither is built, both are named, what was there stays; it heals when one goes."""
    site.write("assets/x.css", "plain")
    with site.daemon() as daemon:
        site.write("assets/x.scss", "a { b: sass }")
        errors = daemon.sync()
        assert {(e["source"], e["state"]) for e in errors} == {
            ("x.css", "conflict"),
            ("x.scss", "conflict"),
        }
        for error in errors:
            other = "x.scss" if error["source"] == "x.css" else "x.css"
            assert f"assets/{other}" in error["message"]
            assert error["file"] == f"assets/{error['source']}"
        assert site.output("x.css") == "plain"
        site.write("assets/x.css", "plain, edited in the conflict")
        assert len(daemon.sync()) == 2
        assert site.output("x.css") == "plain"
        site.remove("assets/x.css")
        assert daemon.sync() == []
        assert "sass" in (site.output("x.css") or "")
        site.write("assets/x.css", "plain")
        assert len(daemon.sync()) == 2
        assert "sass" in (site.output("x.css") or "")
        site.remove("assets/x.scss")
        assert daemon.sync() == []
        assert site.output("x.css") == "plain"
        assert_clean(site)


# --- the configuration ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["inotify", "polling"])
def test_a_changed_sass_style_rebuilds_the_sass_nodes_and_nothing_else(
    site: Site, backend: str
) -> None:
    """A changed option is part of the keys of just the nodes that use it; sync waits for it."""
    config = PLAIN + f"watch: {{backend: {backend}, interval: 50ms}}\n"
    site.write("assetd.yml", config)
    site.write("assets/a.scss", "a { b: c }")
    site.write("assets/b.css", "a { b: c }")
    site.write("assets/c.js.concat", "files: [d.js]\n")
    site.write("assets/d.js", "d")
    with site.daemon() as daemon:
        change = lambda: site.write("assetd.yml", config + "sass: {style: compressed}\n")  # noqa: E731
        assert after(site, daemon, change) == {"assets/a.scss": "built"}
        assert site.output("a.css") == "a{b:c}\n"
        replace = lambda: site.replace("assetd.yml", config)  # noqa: E731
        assert after(site, daemon, replace) == {"assets/a.scss": "cached"}
        assert_clean(site)


def test_a_broken_configuration_leaves_the_old_one_in_force(site: Site) -> None:
    """It shows in the status, with its place, builds go on, and a good one heals it."""
    site.write("assets/a.scss", "a { b: c }")
    with site.daemon() as daemon:
        site.write("assetd.yml", PLAIN + "sass: {style: compresed}\n")
        daemon.sync()
        assert daemon.status()["config_errors"] != []
        assert "assetd.yml:3" in daemon.status()["config_errors"][0]
        site.write("assets/a.scss", "a { b: d }")
        assert daemon.sync() == []
        assert "b: d" in (site.output("a.css") or "")
        site.remove("assetd.yml")
        daemon.sync()
        assert daemon.status()["config_errors"] != []
        site.write("assetd.yml", PLAIN + "sass: {style: compressed}\n")
        daemon.sync()
        assert daemon.status()["config_errors"] == []
        assert site.output("a.css") == "a{b:d}\n"


def test_patterns_and_mounts_may_change_while_it_runs(site: Site) -> None:
    """What is no source any more goes, what becomes one comes, and is watched."""
    site.write("assets/keep.txt", "keep")
    site.write("assets/drafts/a.txt", "draft")
    site.write("assets/my_cache_busting.js", "js")
    site.write("assets/_cache/x.js", "js")
    site.write("more/b.txt", "more")
    with site.daemon() as daemon:
        site.write("assetd.yml", PLAIN + "ignore: [drafts, _cache]\n")
        daemon.sync()
        assert set(site.outputs()) == {"keep.txt", "my_cache_busting.js"}
        site.write("assets/drafts/b.txt", "ignored")
        site.write("assets/_cache/y.txt", "ignored")
        daemon.sync()
        assert set(site.outputs()) == {"keep.txt", "my_cache_busting.js"}
        (site.root / "assets/drafts").rename(site.root / "assets/ready")
        daemon.sync()
        assert {"ready/a.txt", "ready/b.txt"} <= set(site.outputs())
        site.write("assetd.yml", "mounts: [more, assets]\nworkers: 1\n")
        daemon.sync()
        assert site.output("b.txt") == "more"
        site.write("more/b.txt", "more, edited")
        site.write("assets/_cache/y.txt", "no longer ignored")
        daemon.sync()
        assert site.output("b.txt") == "more, edited"
        assert site.output("_cache/y.txt") == "no longer ignored"
        site.write("assetd.yml", "mounts: [more]\nworkers: 1\n")
        daemon.sync()
        assert set(site.outputs()) == {"b.txt"}
        assert_clean(site)


@pytest.mark.parametrize("folder", ["later", "themes/plain/later"])
def test_a_mount_may_be_configured_before_its_folder_is_there(site: Site, folder: str) -> None:
    """It is refused with a message, and taken as soon as the folder appears."""
    site.write("assets/a.txt", "a")
    site.write("themes/readme.md", "A folder in which nobody had anything to watch.")
    with site.daemon() as daemon:
        site.write("assetd.yml", f"mounts: [assets, {folder}]\nworkers: 1\n")
        daemon.sync()
        assert folder in daemon.status()["config_errors"][0]
        site.write(f"{folder}/b.txt", "b")
        wait_for(lambda: site.output("b.txt") == "b", "the new mount to be built")
        assert daemon.status()["config_errors"] == []


def test_a_plugin_may_be_configured_before_it_is_there(site: Site) -> None:
    """The folder that it will come to is watched for it."""
    site.write("assets/a.shout", "a")
    site.write("tools/readme.md", "Plugins will come here.")
    with site.daemon() as daemon:
        site.write("assetd.yml", PLAIN + "plugins: [tools/shout.py]\n")
        daemon.sync()
        assert "tools/shout.py" in daemon.status()["config_errors"][0]
        site.write(
            "tools/shout.py",
            "from assetd.processor import Processor, same_name, suffix\n"
            "shout = Processor(name='shout', version='1', matches=suffix('.shout'),\n"
            "    outputs=same_name, priority=10,\n"
            "    process=lambda step: step.write(step.path, step.input.read_text().upper()))\n",
        )
        wait_for(lambda: site.output("a.shout") == "A", "the plugin to be used")


def test_an_edit_that_says_the_same_starts_no_new_generation(site: Site) -> None:
    """A comment above everything moves each line, and changes nothing."""
    site.write("assets/a.scss", "a { b: c }")
    config = PLAIN + "sass: {style: compressed}\n"
    site.write("assetd.yml", config)
    with site.daemon() as daemon:
        before = daemon.status()["workers"][0]
        site.write("assetd.yml", "# What this is for.\n" + config)
        daemon.sync()
        after = daemon.status()["workers"][0]
        assert (after["pid"], after["generation"]) == (before["pid"], before["generation"])


def test_a_configuration_that_is_edited_while_the_daemon_starts_is_taken(site: Site) -> None:
    """Between reading the file and watching it nobody would hear of the edit."""
    site.write("assets/a.scss", "a { b: c }")
    site.write(
        "late.py",
        "from assetd.processor import Processor, same_name, suffix\n"
        "def start(context):\n"
        "    (context.project / 'assetd.yml').write_text(\n"
        f"        {PLAIN + 'sass: {style: compressed}'!r})\n"
        "late = Processor(name='late', version='1', matches=suffix('.late'), outputs=same_name,\n"
        "    process=lambda step: step.copy(), start=start)\n",
    )
    site.write("assetd.yml", PLAIN + "plugins: [late.py]\n")
    with site.daemon():
        wait_for(lambda: site.output("a.css") == "a{b:c}\n", "the edit to be taken")


def test_a_forced_source_is_built_with_every_batch_of_its_mount(layers: Site) -> None:
    """`force` takes it along when something else of its mount is built, and only then."""
    layers.write("assetd.yml", LAYERS + "force: ['*.stamp']\n")
    layers.write("assets/a.stamp", "a")
    layers.write("assets/b.txt", "b")
    layers.write("theme/c.txt", "c")
    with layers.daemon() as daemon:
        found = after(layers, daemon, lambda: layers.write("assets/b.txt", "b2"))
        assert found == {"assets/a.stamp": "built", "assets/b.txt": "built"}
        found = after(layers, daemon, lambda: layers.write("theme/c.txt", "c2"))
        assert found == {"theme/c.txt": "built"}


def test_the_watch_backend_may_change_while_it_runs(site: Site) -> None:
    """Whoever moves a project to a network file system changes one line, and no more."""
    site.write("assets/a.txt", "a")
    polling = PLAIN + "watch: {backend: polling, interval: 50ms}\n"
    with site.daemon() as daemon:
        for config, backend in ((polling, "polling"), (PLAIN, "inotify"), (polling, "polling")):
            site.write("assetd.yml", config)
            daemon.sync()
            wait_for(lambda b=backend: daemon.status()["watch"]["backend"] == b, backend)  # type: ignore[misc]
            site.write("assets/a.txt", backend)
            daemon.sync()
            assert site.output("a.txt") == backend


# --- failures -------------------------------------------------------------------------------


def test_a_broken_partial_keeps_the_last_good_output_and_heals(site: Site) -> None:
    """The error names file, line and column of the partial, and shows the line."""
    site.write("assets/css/_vars.scss", "$c: good;")
    site.write("assets/css/site.scss", "@import 'vars';\na { b: $c }")
    with site.daemon() as daemon:
        good = site.output("css/site.css")
        site.write("assets/css/_vars.scss", "$x: 1;\n$c: $undefined;")
        (error,) = daemon.sync()
        assert {k: error[k] for k in ("mount", "source", "processor", "file", "line")} == {
            "mount": "assets",
            "source": "css/site.scss",
            "processor": "sass",
            "file": "assets/css/_vars.scss",
            "line": 2,
        }
        assert error["column"] == 5
        assert error["excerpt"] == "$c: $undefined;"
        assert "ndefined variable" in error["message"]
        assert site.output("css/site.css") == good
        told = site.run("errors")
        assert told.returncode == 1
        assert "assets/css/_vars.scss:2:5" in told.stdout
        site.write("assets/css/_vars.scss", "$c: healed;")
        assert daemon.sync() == []
        assert "healed" in (site.output("css/site.css") or "")
        site.write("assets/other.css", "one broken file never stops the others")
        site.write("assets/css/site.scss", "@import 'vars', 'missing'; a { b: $c }")
        assert [e["source"] for e in daemon.sync()] == ["css/site.scss"]
        assert site.output("other.css") == "one broken file never stops the others"
        site.write("assets/css/_missing.scss", "c { d: e }")
        assert daemon.sync() == []
        assert_clean(site)


# --- how editors save -----------------------------------------------------------------------


def truncated(path: Path, text: str) -> None:
    """As `echo > file` and most simple editors do."""
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    """As Kate, gedit, VS Code with atomic saves and JetBrains do."""
    temporary = path.with_name(f"{path.name}~")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def vim_by_rename(path: Path, text: str) -> None:
    """As vim with backupcopy=no does: strace of 9.0."""
    probe, backup = path.with_name("4913"), path.with_name(f"{path.name}~")
    probe.touch()
    probe.unlink()
    path.rename(backup)
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
    backup.unlink()


def vim_by_copy(path: Path, text: str) -> None:
    """As vim with backupcopy=yes does."""
    backup = path.with_name(f"{path.name}~")
    shutil.copy2(path, backup)
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
    backup.unlink()


def by_sed(path: Path, text: str) -> None:
    """As `sed -i` does: a temporary name that no pattern knows, then a rename."""
    script = text.replace("/", "\\/")
    subprocess.run(["sed", "-i", f"s/.*/{script}/", path.name], cwd=path.parent, check=True)


def slowly(path: Path, text: str) -> None:
    """As a compiler or a copy over the network does."""
    with open(path, "w") as file:
        for character in text[:6]:
            file.write(character)
            file.flush()
            time.sleep(0.004)  # the writer that is waited for
        file.write(text[6:])


SAVES = (truncated, renamed, vim_by_rename, vim_by_copy, by_sed, slowly)


class Lookout:
    """Looks at the outputs all the time, from a process of its own, as a web server does."""

    CODE = """if True:
        import os, sys
        folder, name = sys.argv[1:]
        print("ready", flush=True)
        os.set_blocking(0, False)
        found = set()
        while True:
            try:
                if os.read(0, 1) == b"":
                    break
            except BlockingIOError:
                pass
            found.update(n for n in os.listdir(folder) if n != name)
            try:
                with open(f"{folder}/{name}") as file:
                    text = file.read()
                if not (text.startswith("<") and text.endswith(">")):
                    found.add(f"half a file: {text!r}")
            except FileNotFoundError:
                found.add("no file")
        print(*sorted(found), sep="\\n")
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, folder, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> list[str]:
        """What was seen besides the file, or instead of it."""
        said, _ = self.process.communicate()
        return said.split("\n")[:-1] if said.strip() else []


@pytest.mark.parametrize("save", SAVES, ids=lambda save: save.__name__)
def test_a_save_is_one_rebuild_and_never_a_missing_output(
    site: Site, save: Callable[[Path, str], None]
) -> None:
    """However the editor saves: once, no reader finds nothing, half a file or a stray one."""
    path = site.write("assets/page.txt", "<0>")
    if save is slowly:  # a noisy machine makes the writer's pauses longer still
        site.write("assetd.yml", PLAIN + "settle: {gap: 100ms}\n")
    with site.daemon() as daemon:
        lookout = Lookout(site.root / "public", "page.txt")
        try:
            for number in range(1, 16 if save is slowly else 51):
                text = f"<{number}: {'x' * number}>"
                before = times_built(daemon, "assets/page.txt")
                save(path, text)
                if number % 10:
                    wait_for(lambda t=text: site.output("page.txt") == t, "the save")  # type: ignore[misc]
                daemon.sync()
                assert site.output("page.txt") == text
                assert times_built(daemon, "assets/page.txt") == before + 1
        finally:
            seen = lookout.end()
        assert seen == []
        assert entries(site).keys() == {"assets/page.txt"}


def test_a_slow_writer_is_waited_for_but_not_for_ever(site: Site) -> None:
    """One rebuild when it is done; a file that is never closed is built all the same."""
    path = site.write("assets/log.txt", "")
    site.write("assetd.yml", PLAIN + "settle: {gap: 100ms}\n")
    with site.daemon() as daemon:
        with open(path, "w") as file:
            for _ in range(10):
                file.write("line\n")
                file.flush()
                time.sleep(0.02)  # the writer that is waited for
        daemon.sync()
        assert times_built(daemon, "assets/log.txt") == 1
        assert site.output("log.txt") == "line\n" * 10
        with open(path, "a") as file:
            file.write("open\n")
            file.flush()
            wait_for(lambda: "open" in (site.output("log.txt") or ""), "the open file", 5.0)


def test_a_save_by_rename_of_a_partial_is_one_rebuild_of_its_importers(site: Site) -> None:
    """The partial is gone for a moment; nobody is told that it was missing."""
    partial = site.write("assets/_part.scss", "$c: 0;")
    site.write("assets/site.scss", "@import 'part'; a { b: $c }")
    with site.daemon() as daemon:
        for number in range(1, 6):
            vim_by_rename(partial, f"$c: {number};")
            wait_for(lambda n=number: f"b: {n};" in (site.output("site.css") or ""), "the save")  # type: ignore[misc]
            daemon.sync()
        assert times_built(daemon, "assets/site.scss") == 5
        assert " failed " not in daemon.log


def test_an_editor_that_writes_elsewhere_first_is_no_deletion(site: Site) -> None:
    """Deleted and back within the wait for deletions: an edit, and the output never goes."""
    site.write("assetd.yml", PLAIN + "settle: {deletion: 60s}\n")  # however slow the machine is
    path = site.write("assets/page.txt", "<0>")
    with site.daemon() as daemon:
        lookout = Lookout(site.root / "public", "page.txt")
        for number in range(1, 6):
            path.unlink()
            time.sleep(0.01)  # an editor's pause
            path.write_text(f"<{number}>")
            wait_for(lambda n=number: site.output("page.txt") == f"<{n}>", "the save")  # type: ignore[misc]
        assert lookout.end() == []
        assert times_built(daemon, "assets/page.txt") == 5


# --- git ------------------------------------------------------------------------------------

GIT = "git -c user.name=t -c user.email=t@t -c init.defaultBranch=main -c core.hooksPath=/dev/null"


@pytest.fixture
def repository(site: Site) -> Site:
    """A git repository with the branches `main` and `other`."""
    site.write(".gitignore", "public\n.assetd\n")
    site.write("assets/_vars.scss", "$c: main;")
    for number in range(8):
        text = f"@import '_vars'; a{number} {{ b: $c }}"
        site.write(f"assets/css/{number}.scss", text.replace("_vars", "../vars"))
    site.write("assets/only-main/m.scss", "a { b: c }")
    site.write("assets/readme.txt", "main")
    shell(f"{GIT} init -q; {GIT} add .; {GIT} commit -qm 1; {GIT} checkout -qb other", site.root)
    site.write("assets/_vars.scss", "$c: other;")
    site.write("assets/only-other/o.scss", "a { b: c }")
    site.write("assets/readme.txt", "other")
    site.remove("assets/only-main")
    shell(f"{GIT} add -A; {GIT} commit -qm 2; {GIT} checkout -q main", site.root)
    return site


def test_a_branch_and_back_compiles_nothing_the_second_time(repository: Site) -> None:
    """What a node once made is kept by its key: compiled results come from the store."""
    site = repository
    compiled = {f"assets/css/{number}.scss" for number in range(8)}
    with site.daemon() as daemon:
        shell(f"{GIT} checkout -q other", site.root)
        daemon.sync()
        assert_clean(site)
        for branch in ("main", "other", "main"):
            switch = lambda b=branch: shell(f"{GIT} checkout -q {b}", site.root)  # noqa: E731
            found = after(site, daemon, switch)
            assert {p: s for p, s in found.items() if p in compiled} == dict.fromkeys(
                compiled, "cached"
            )
            assert {p for p, s in found.items() if s == "built"} <= {"assets/readme.txt"}
            assert_clean(site)


def test_git_is_waited_for_while_it_holds_its_lock(repository: Site) -> None:
    """Half a checkout is not built; `sync` waits for the whole of it."""
    site = repository
    lock = site.root / ".git/index.lock"
    with site.daemon() as daemon:
        lock.touch()
        site.write("assets/readme.txt", "half a checkout")
        site.write("assets/new/half.txt", "half a checkout")
        with contextlib.closing(daemon.connect()) as connection:
            connection.send("sync")
            with pytest.raises(DeadlineError):
                connection.receive(time.monotonic() + 0.3)
            assert site.output("readme.txt") == "main"
            site.write("assets/readme.txt", "all of it")
            lock.unlink()
            assert connection.receive(time.monotonic() + 10.0)["ok"]
        assert site.output("readme.txt") == "all of it"
        assert site.output("new/half.txt") == "half a checkout"


def test_a_lock_that_git_left_behind_does_not_block(repository: Site) -> None:
    """An old one counts for nothing, a fresh one for so long and no longer."""
    site = repository
    site.write("assetd.yml", PLAIN + "settle: {git: 300ms}\n")
    lock = site.root / ".git/index.lock"
    lock.touch()
    os.utime(lock, (time.time() - 600, time.time() - 600))
    with site.daemon() as daemon:
        began = time.monotonic()
        site.write("assets/readme.txt", "one")
        daemon.sync()
        assert site.output("readme.txt") == "one"
        assert time.monotonic() - began < 0.25
        os.utime(lock)
        site.write("assets/readme.txt", "two")
        daemon.sync()
        assert site.output("readme.txt") == "two"


# --- while something runs -------------------------------------------------------------------

GATED = """
import os, time
from assetd.processor import Processor, same_name, suffix

def gated(step):
    text = step.input.read_text()
    step.depends("assets/gated.dep")
    with open(step.project / "runs", "a") as runs:
        runs.write(text + "\\n")
    while os.path.exists(step.project / "gate"):
        time.sleep(0.002)
    step.write(step.path, text + (step.project / "assets/gated.dep").read_text())

processor = Processor(
    name="gated", version="1", matches=suffix(".gated"), outputs=same_name, process=gated
)
"""


@pytest.fixture
def gated(site: Site) -> Site:
    """A project with a processor that waits for as long as there is a file `gate`."""
    config = "mounts: [assets, theme]\nworkers: 2\nplugins: [gated.py]\nsandbox_write: [runs]\n"
    site.write("assetd.yml", config)
    site.write("runs")
    site.write("gated.py", GATED)
    site.write("assets/gated.dep", "-")
    (site.root / "theme").mkdir()
    return site


def is_running(daemon: Daemon) -> bool:
    return bool(daemon.status()["queue"]["running"])


def test_a_save_during_a_batch_is_not_lost(gated: Site) -> None:
    """Of the source, of its dependency and of others; those do not wait for it."""
    site = gated
    site.write("assets/x.gated", "1")
    with site.daemon() as daemon, ThreadPoolExecutor() as threads:
        for number in range(1, 4):
            site.write("gate")
            site.write("assets/x.gated", f"{number}a")
            wait_for(lambda: is_running(daemon), "the slow job")
            site.write("assets/quick.txt", f"{number}")
            wait_for(lambda n=number: site.output("quick.txt") == f"{n}", "the quick one")  # type: ignore[misc]
            assert is_running(daemon)
            site.write("assets/x.gated", f"{number}b")
            site.write("assets/gated.dep", f"-{number}")
            synced = threads.submit(daemon.sync)
            site.write("assets/later.txt", f"{number}")
            wait_for(lambda n=number: site.output("later.txt") == f"{n}", "the later one")  # type: ignore[misc]
            assert not synced.done()
            site.remove("gate")
            assert synced.result(20.0) == []
            assert site.output("x.gated") == f"{number}b-{number}"
        assert_clean(site)


def test_sync_waits_for_what_had_to_wait_for_a_job(gated: Site) -> None:
    """A source that shares an output with one under way waits for it, edited or not."""
    site = gated
    site.write("assets/x.gated", "1")
    site.write("theme/x.gated", "theme 1")
    with site.daemon() as daemon, ThreadPoolExecutor() as threads:
        site.write("gate")
        site.write("assets/x.gated", "2")
        wait_for(lambda: is_running(daemon), "the slow job")
        site.remove("assets/x.gated")
        site.write("theme/x.gated", "theme 2")
        synced = threads.submit(daemon.sync)
        for number in range(3, 6):
            site.write("theme/x.gated", f"theme {number}")
            site.write("assets/quick.txt", f"{number}")
            wait_for(lambda n=number: site.output("quick.txt") == f"{n}", "the quick one")  # type: ignore[misc]
        assert not synced.done()
        site.remove("gate")
        assert synced.result(20.0) == []
        assert site.output("x.gated") == "theme 5-"
        assert_clean(site)


def test_a_source_that_goes_while_it_is_built_leaves_nothing(gated: Site) -> None:
    """What a job made of a source that is no more is not published."""
    site = gated
    site.write("gate")
    with site.daemon(ready=False) as daemon:
        daemon.wait_until_ready()
        site.write("assets/x.gated", "1")
        wait_for(lambda: is_running(daemon), "the slow job")
        site.remove("assets/x.gated")
        site.remove("gate")
        daemon.sync()
        assert site.output("x.gated") is None
        assert_clean(site)


def test_a_changed_configuration_waits_for_the_batch_and_sync_for_both(gated: Site) -> None:
    """Workers of another generation start when no job of the old one is left."""
    site = gated
    site.write("assets/a.scss", "a { b: c }")
    with site.daemon() as daemon, ThreadPoolExecutor() as threads:
        site.write("gate")
        site.write("assets/x.gated", "1")
        wait_for(lambda: is_running(daemon), "the slow job")
        old = (site.root / "assetd.yml").read_text()
        site.write("assetd.yml", old + "sass: {style: compressed}\n")
        site.write("assets/a.scss", "a { b: d }")
        synced = threads.submit(daemon.sync)
        time.sleep(0.1)  # long enough for a wrong answer
        assert not synced.done()
        site.remove("gate")
        assert synced.result(20.0) == []
        assert site.output("a.css") == "a{b:d}\n"
        assert site.output("x.gated") == "1-"


# --- when events do not help ----------------------------------------------------------------


def test_polling_converges_too(site: Site) -> None:
    """For file systems without events; the status says so."""
    site.write("assetd.yml", PLAIN + "watch: {backend: polling, interval: 50ms}\n")
    site.write("assets/a.txt", "a")
    with site.daemon() as daemon:
        watch = daemon.status()["watch"]
        assert (watch["backend"], watch["interval_s"]) == ("polling", 0.05)
        site.write("assets/sub/b.scss", "a { b: c }")
        wait_for(lambda: site.output("sub/b.css"), "the poll")
        site.remove("assets/a.txt")
        wait_for(lambda: site.output("a.txt") is None, "the poll")
        site.remove("public/sub")
        wait_for(lambda: site.output("sub/b.css"), "the poll")
        (site.root / "assets/sub").rename(site.root / "assets/bus")
        site.remove("public/sub/b.css")
        site.write("assets/bus/_x.scss", "")
        daemon.sync()
        assert_clean(site)


def test_a_burst_of_thousands_of_files_in_new_folders_is_built_whole(site: Site) -> None:
    """`mkdir -p` with files in it: many of them make no event at all."""
    with site.daemon() as daemon:
        shell(
            "for d in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir -p $d/a/b/c; "
            "for f in 1 2 3 4 5 6 7 8 9; do echo $d $f > $d/$f.txt; "
            "echo $d $f > $d/a/$f.txt; echo $d $f > $d/a/b/$f.txt; "
            "echo $d $f > $d/a/b/c/$f.txt; done; done",
            site.root / "assets",
        )
        daemon.sync()
        assert len(site.outputs()) == 12 * 9 * 4
        assert_clean(site)


# --- the output folder ----------------------------------------------------------------------


def test_deleted_outputs_come_back(site: Site) -> None:
    """One, a folder, or all of `public/`: removed, or moved away; again and again."""
    site.write("assetd.yml", PLAIN + "sass: {source_map: true}\n")
    site.write("assets/css/site.scss", "a { b: c }")
    site.write("assets/css/deep/a.txt", "a")
    site.write("assets/b.txt", "b")
    with site.daemon() as daemon:
        whole = site.outputs()
        assert len(whole) == 4

        def is_back() -> bool:
            return site.outputs() == whole

        for turn in range(2):
            site.remove("public/css/site.css.map")
            wait_for(is_back, "one output")
            site.remove("public/css")
            wait_for(is_back, "a folder")
            (site.root / "public/css").rename(site.root / f"css{turn}")
            wait_for(is_back, "a folder that was moved away")
            site.remove("public")
            wait_for(is_back, "the output root")
            (site.root / "public").rename(site.root / f"public{turn}")
            wait_for(is_back, "an output root that was moved away")
        daemon.sync()
        assert daemon.status()["outputs"] == 4
        assert daemon.sync() == []


@pytest.mark.parametrize("moved", ["build", "build/deep", "build/deep/site"])
def test_outputs_that_were_moved_away_with_a_folder_above_come_back(site: Site, moved: str) -> None:
    """Their own folders hear nothing of it."""
    site.write("assetd.yml", PLAIN + "out_dir: build/deep/site\n")
    site.write("assets/css/a.txt", "a")
    site.write("assets/b.txt", "b")
    with site.daemon():
        whole = site.outputs("build/deep/site")
        assert len(whole) == 2
        for turn in range(2):
            (site.root / moved).rename(site.root / f"away{turn}")
            wait_for(lambda: site.outputs("build/deep/site") == whole, "all of it")
        site.remove("build/deep/site/css")
        wait_for(lambda: site.outputs("build/deep/site") == whole, "a folder")


def test_an_output_edited_by_hand_is_not_replaced(site: Site) -> None:
    """Nor deleted: it is told of, and built again when whoever edited it takes it away."""
    site.write("assets/a.txt", "one")
    site.write("assets/b.txt", "one")
    with site.daemon() as daemon:
        site.write("public/a.txt", "edited by hand")
        site.write("public/b.txt", "edited by hand")
        wait_for(lambda: daemon.log.count("output_edited") >= 2, "the warnings")
        site.write("assets/a.txt", "two")
        (error,) = daemon.sync()
        assert (error["source"], error["state"]) == ("a.txt", "blocked")
        assert "edited" in error["message"]
        site.remove("assets/b.txt")
        daemon.sync()
        assert site.outputs() == {"a.txt": b"edited by hand", "b.txt": b"edited by hand"}
        assert "output_kept" in daemon.log
        assert daemon.status()["outputs"] == 0
        site.remove("public/a.txt")
        wait_for(lambda: site.output("a.txt") == "two", "the output to be built again")
        assert daemon.sync() == []
        assert daemon.status()["outputs"] == 1
        site.write("assets/b.txt", "two")
        (error,) = daemon.sync()
        assert (error["source"], error["state"]) == ("b.txt", "blocked")
        site.replace("public/b.txt", "two")
        site.write("assets/b.txt", "two ")
        site.write("assets/b.txt", "two")
        daemon.sync()
        assert site.output("b.txt") == "two"


def test_a_foreign_file_is_kept_until_somebody_says_to_take_over(site: Site) -> None:
    """Also one that appears where an output is to be; `build --take-over` replaces it."""
    site.write("public/a.txt", "foreign")
    site.write("public/other.txt", "nobody's")
    site.write("assets/a.txt", "mine")
    with site.daemon() as daemon:
        (error,) = daemon.sync()
        assert error["state"] == "blocked"
        assert "a.txt" in error["message"]
        assert "--take-over" in error["message"]
        assert site.output("a.txt") == "foreign"
        site.remove("assets/a.txt")
        assert daemon.sync() == []
        assert site.output("a.txt") == "foreign"
        site.write("assets/a.txt", "mine")
        assert len(daemon.sync()) == 1
    assert site.build("--take-over")["errors"] == []
    assert site.outputs() == {"a.txt": b"mine", "other.txt": b"nobody's"}
    with site.daemon() as daemon:
        site.remove("assets/a.txt")
        daemon.sync()
        assert site.outputs() == {"other.txt": b"nobody's"}


def test_a_file_becomes_a_folder_and_a_folder_a_file(site: Site) -> None:
    """Outputs that stand in each other's way are swapped."""
    site.write("assets/x", "file")
    with site.daemon() as daemon:
        site.remove("assets/x")
        site.write("assets/x/y", "in a folder")
        assert daemon.sync() == []
        assert site.outputs() == {"x/y": b"in a folder"}
        site.remove("assets/x")
        site.write("assets/x", "file again")
        assert daemon.sync() == []
        assert site.outputs() == {"x": b"file again"}


# --- everything at once ---------------------------------------------------------------------


class Chaos:
    """Random operations on two mounts, from a seed."""

    FOLDERS = ("", "a", "b", "a/c", "a/c/d", "e")
    NAMES = ("x.txt", "y.css", "y.scss", "z.scss", "_p.scss", "_q.scss", "all.txt.concat", "w.tmp")

    def __init__(self, site: Site, seed: int) -> None:
        self.root = site.root
        self.random = random.Random(seed)
        self.serial = 0

    def folder(self) -> Path:
        mount = self.random.choice(("assets", "assets", "theme"))
        return self.root / mount / self.random.choice(self.FOLDERS)

    def file(self) -> Path:
        return self.folder() / self.random.choice(self.NAMES)

    def text(self, path: Path) -> str:
        self.serial += 1
        if path.name.endswith(".concat"):
            files = self.random.choice(("['*.txt']", "[x.txt]", "[a/x.txt, '**/y.css']"))
            return f"files: {files}"
        if path.suffix == ".scss":
            imports = self.random.choice(("", "@import 'p';", "@import 'q';", "@import 'a/p';"))
            if path.name == "_p.scss":
                imports = self.random.choice(("", "@import 'q';"))
            elif path.name == "_q.scss":
                imports = ""
            broken = self.random.random() < 0.05
            return f"{imports} a {{ b: {'$no' if broken else self.serial % 5} }}"
        return f"{path.name} {self.serial % 7}"

    def step(self) -> None:
        """Do one thing; what cannot be done is left."""
        with contextlib.suppress(OSError):
            match self.random.randrange(10):
                case 0 | 1 | 2 | 3:
                    path = self.file()
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(self.text(path))
                case 4:
                    path = self.file()
                    temporary = path.with_name(path.name + "~")
                    temporary.write_text(self.text(path))
                    temporary.rename(path)
                case 5:
                    self.file().unlink()
                case 6:
                    other = self.file()
                    self.file().rename(other)
                case 7:
                    self.folder().mkdir(parents=True)
                case 8:
                    one, other = self.folder(), self.folder()
                    if self.root not in {one.parent, other.parent}:
                        one.rename(other)
                case 9:
                    folder = self.folder()
                    if folder.parent != self.root or self.random.random() < 0.2:
                        shutil.rmtree(folder)


def standing(site: Site) -> tuple[dict[str, bytes], dict[str, str]]:
    """The outputs that no failing source claims, and how the failing ones fail.

    What a failing source made before stays, so those outputs tell of the past.
    """
    wrong = {
        place: entry
        for place, entry in entries(site).items()
        if entry.state not in {EntryState.OK, EntryState.OVERRIDDEN}
    }
    claimed = {claim for entry in wrong.values() for claim in entry.claims}
    outputs = {path: content for path, content in site.outputs().items() if path not in claimed}
    return outputs, {place: entry.state.value for place, entry in wrong.items()}


@pytest.mark.parametrize("seed", [1, 2])
def test_after_anything_at_all_the_outputs_are_those_of_a_clean_build(
    layers: Site, seed: int
) -> None:
    """500 operations in random order, with a look at every hundredth: promise 1."""
    chaos = Chaos(layers, seed)
    with layers.daemon() as daemon:
        for number in range(1, 501):
            chaos.step()
            if number % 100:
                continue
            for mount in ("assets", "theme"):
                (layers.root / mount).mkdir(exist_ok=True)
            daemon.sync()
            fresh = copy_of(layers)
            fresh.build()
            assert standing(layers) == standing(fresh)
            shutil.rmtree(fresh.root)


def copy_of(site: Site) -> Site:
    """The same sources in a project that knows nothing of before."""
    root = site.root.with_name("fresh")
    root.mkdir()
    fresh = Site(root, (site.root / "assetd.yml").read_text())
    for mount in ("assets", "theme"):
        shutil.copytree(site.root / mount, root / mount, dirs_exist_ok=True)
    return fresh


# -- while something slow is under way ----------------------------------------------------------

SLOW = """
import time
from assetd.processor import Processor, same_name, suffix
def process(step):
    while not (step.project / "go").exists():
        time.sleep(0.01)
    step.copy()
slow = Processor(name="slow", version="1", matches=suffix(".slow"), outputs=same_name,
                 process=process, ends=True)
"""


def edit_the_partial(site: Site) -> None:
    site.write("assets/css/_p.scss", "$c: blue;")


def exchange_the_folder(site: Site) -> None:
    site.write("away/_p.scss", "$c: blue;")
    (site.root / "assets/css").rename(site.root / "away/css")
    (site.root / "away").rename(site.root / "assets/css")


def add_a_part(site: Site) -> None:
    site.write("assets/parts/b.js", "b")


def hide_the_partial(site: Site) -> None:
    site.write("assets/_p.scss", "$c: blue;")


@pytest.mark.parametrize(
    "change", [edit_the_partial, exchange_the_folder, add_a_part, hide_the_partial]
)
def test_a_change_between_a_job_and_its_commit_is_not_lost(
    site: Site, change: Callable[[Site], None]
) -> None:
    """What a new source depends on is recorded with its slice, and another job holds that up."""
    site.write("slow.py", SLOW)
    config = "mounts: [assets]\nworkers: 2\nplugins: [slow.py]\nsass: {load_paths: [assets/css]}\n"
    site.write("assetd.yml", config)
    site.write("assets/css/_p.scss", "$c: red;")
    site.write("assets/page.scss", "@import 'p'; a { b: $c }")
    site.write("assets/parts/a.js", "a")
    site.write("assets/all.js.concat", "files: ['parts/*.js']")
    site.write("assets/held.slow", "at last")
    # The first scan finds the three in one folder, so they are in one slice.
    with site.daemon(ready=False) as daemon:

        def only_one_is_left() -> bool:
            with contextlib.suppress(NotRunningError):
                status = daemon.status()
                done: int = sum(worker["jobs"] for worker in status["workers"])
                return done == 2 and status["queue"]["running"] == 1
            return False

        wait_for(only_one_is_left, "the others to be done")
        change(site)
        site.write("assets/later.txt", "of its own")
        wait_for(lambda: "later.txt" in site.outputs(), "a save after it")
        assert "page.css" not in site.outputs()
        site.write("go")
        assert daemon.sync() == []
        assert site.outputs() == site.clean_build()
        assert site.output("page.css") == (
            "a {\n  b: red; }\n" if change is add_a_part else "a {\n  b: blue; }\n"
        )
