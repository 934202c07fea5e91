"""Chains of real tools: an edit runs what comes after it, and nothing that it does not reach."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from assetd.model import NodeState
from assetd.record import Reader
from assetd.testing import Daemon, Site
from assetd_processors import tools

BUILT, CLEAN = NodeState.BUILT, NodeState.CLEAN
CONFIG = "mounts: {assets: {processors: concat less cleancss uglifyjs}}\nworkers: 1\n"

LESS = """\
@import "_colors";
// The compiler drops this line.
.nav { color: @brand; margin: 0px; }
"""
RECIPE = "files: [parts/a.txt, parts/b.txt]\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with both chains."""
    tools.install(io.StringIO())
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", CONFIG)
    site.write("assets/app.js.concat", RECIPE)
    site.write("assets/parts/a.txt", "var longName = 1;\n")
    site.write("assets/parts/b.txt", "console.log(longName);\n")
    site.write("assets/site.less", LESS)
    site.write("assets/_colors.less", "@brand: #aabbcc;\n")
    return site


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    """`assetd run` in it, when all is built for the first time."""
    with site.daemon() as daemon:
        assert daemon.sync() == []
        assert states(site, "app.js.concat") == {"concat": BUILT, "uglifyjs": BUILT}
        assert states(site, "site.less") == {"less": BUILT, "cleancss": BUILT}
        yield daemon


def states(site: Site, path: str) -> dict[str, NodeState]:
    """How each processor of a source's chain ended, when the source was last looked at."""
    with contextlib.closing(Reader(os.fspath(site.root / ".assetd/record.sqlite"))) as reader:
        (entry,) = (e for e in reader.entries() if e.source.path == path)
    return {node.processor: node.state for node in entry.nodes}


def batch(site: Site, path: str) -> int:
    """The batch in which a source was last looked at."""
    with contextlib.closing(Reader(os.fspath(site.root / ".assetd/record.sqlite"))) as reader:
        (entry,) = (e for e in reader.entries() if e.source.path == path)
    return entry.batch


def test_an_edited_input_runs_the_chain(site: Site, daemon: Daemon) -> None:
    """Of the source, of a part and of an import: from the first processor to the last."""
    assert site.output("app.js") == "var longName=1;console.log(longName);"
    assert site.output("site.css") == ".nav{color:#abc;margin:0}"

    site.write("assets/parts/a.txt", "var longName = 2;\n")
    assert daemon.sync() == []
    assert site.output("app.js") == "var longName=2;console.log(longName);"
    assert states(site, "app.js.concat") == {"concat": BUILT, "uglifyjs": BUILT}

    site.write("assets/app.js.concat", RECIPE.replace("a.txt, parts/b", "b.txt, parts/a"))
    assert daemon.sync() == []
    assert site.output("app.js") == "console.log(longName);var longName=2;"
    assert states(site, "app.js.concat") == {"concat": BUILT, "uglifyjs": BUILT}

    site.write("assets/_colors.less", "@brand: #ddeeff;\n")
    assert daemon.sync() == []
    assert site.output("site.css") == ".nav{color:#def;margin:0}"
    assert states(site, "site.less") == {"less": BUILT, "cleancss": BUILT}
    assert site.outputs() == site.clean_build()


def test_an_edited_option_runs_its_own_node_alone(site: Site, daemon: Daemon) -> None:
    """What stands before it in the chain is as it was, and no other chain is looked at."""
    scripts = batch(site, "app.js.concat")
    site.write("assetd.yml", CONFIG + "cleancss: {level: 0}\n")
    assert daemon.sync() == []
    assert site.output("site.css") == ".nav{color:#aabbcc;margin:0px}"
    assert states(site, "site.less") == {"less": CLEAN, "cleancss": BUILT}
    assert batch(site, "app.js.concat") == scripts

    styles = batch(site, "site.less")
    site.write("assetd.yml", CONFIG + "cleancss: {level: 0}\nuglifyjs: {options: {toplevel: on}}\n")
    assert daemon.sync() == []
    assert site.output("app.js") == "var o=1;console.log(o);"
    # concat is cheap: what it makes is not kept, so it has to join the parts again.
    assert states(site, "app.js.concat") == {"concat": BUILT, "uglifyjs": BUILT}
    assert batch(site, "site.less") == styles
    assert site.outputs() == site.clean_build()


def test_an_intermediate_that_comes_out_the_same_stops_the_chain(
    site: Site, daemon: Daemon
) -> None:
    """Its bytes count, not that somebody made them."""
    before = {name: os.stat(site.root / "public" / name) for name in ("app.js", "site.css")}

    site.write("assets/site.less", LESS.replace("drops this line", "drops another line"))
    assert daemon.sync() == []
    assert states(site, "site.less") == {"less": BUILT, "cleancss": CLEAN}

    site.write("assets/app.js.concat", "# the same list\n" + RECIPE)
    assert daemon.sync() == []
    assert states(site, "app.js.concat") == {"concat": BUILT, "uglifyjs": CLEAN}

    after = {name: os.stat(site.root / "public" / name) for name in before}
    assert after == before
    assert site.outputs() == site.clean_build()
