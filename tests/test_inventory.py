"""`tree`, `list` and `config`: what there is and how it is made, for people and for scripts."""

import json
from pathlib import Path
from typing import Any

import pytest

from assetd import catalog, commands_look, config, inventory, registry
from assetd.model import EntryState
from assetd.testing import Site

CHAIN = "mounts: {assets: {processors: all}}\nworkers: 1\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A chain of two processors, a plain file, and a source that fails."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets, theme]\nworkers: 1\n")
    site.write("assets/css/_ink.scss", "$ink: navy;\n")
    site.write("assets/css/site.scss", "@import 'ink';\nbody { color: $ink; }\n")
    site.write("assets/broken.scss", "a { color: $nope }\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    site.write("theme/robots.txt", "behind\n")
    return site


def facts(site: Site, *arguments: str, code: int = 0) -> Any:
    done = site.run(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


# -- tree ---------------------------------------------------------------------------------


def test_tree_shows_each_node_with_its_state(site: Site) -> None:
    """From the source to its outputs, whether they are in place, and how long each took."""
    site.build()
    for name in ("assets/css/site.scss", "public/css/site.css", "css/site.scss"):
        tree = facts(site, "tree", name)
        assert (tree["source"], tree["state"]) == ("assets/css/site.scss", "ok")
    (sass,) = tree["nodes"]
    assert (sass["processor"], sass["state"], sass["path"]) == ("sass", "built", "css/site.scss")
    (made,) = sass["made"]
    (copy,) = made["nodes"]
    assert copy["processor"] == "copy"
    (output,) = copy["made"]
    assert (output["path"], output["is_output"], output["in_place"]) == ("css/site.css", True, True)
    (site.root / "public/css/site.css").unlink()
    lines = site.run("tree", "assets/css/site.scss").stdout.splitlines()
    assert lines[0].startswith("assets/css/site.scss ")
    assert lines[1].startswith("└─ sass ")
    assert lines[2].startswith("   └─ css/site.css ")


def test_tree_shows_what_fails_and_what_waits_for_it(site: Site) -> None:
    """The failure in a line; the last node was not asked."""
    site.build()
    tree = facts(site, "tree", "assets/broken.scss")
    assert tree["state"] == "failed"
    states = {node["processor"]: node["state"] for node in tree["nodes"]}
    assert states["sass"] == "failed"
    assert tree["errors"][0]["line"] == 1
    assert "Undefined variable" in site.run("tree", "assets/broken.scss").stdout


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("assets/css/sit.scss", "did you mean"),
        ("assets/css/_ink.scss", "is no source: others include it"),
        ("assets/gone.txt", "is gone: `assetd why` tells its story"),
    ],
)
def test_tree_of_what_has_none_says_why(site: Site, name: str, told: str) -> None:
    """Exit code 2, and where to look instead."""
    site.write("assets/gone.txt", "x")
    site.build()
    site.remove("assets/gone.txt")
    site.build()
    done = site.run("tree", name)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.parametrize("command", [["tree", "assets/robots.txt"], ["list"]])
def test_before_the_first_build_there_is_nothing_to_show(site: Site, command: list[str]) -> None:
    """Exit code 2, and what to do."""
    done = site.run(*command)
    assert done.returncode == 2
    assert "`assetd build` does it" in done.stderr


# -- list ---------------------------------------------------------------------------------


def test_list_names_every_source_with_its_outputs(site: Site) -> None:
    """Aligned, one a line, folder by folder; partials are no sources."""
    site.build()
    assert site.run("list").stdout.splitlines() == [
        "failed      assets/broken.scss → broken.css",
        "ok          assets/robots.txt → robots.txt",
        "ok          assets/css/site.scss → css/site.css",
        "overridden  theme/robots.txt → robots.txt",
    ]


def test_list_can_be_asked_for_one_state(site: Site) -> None:
    """In JSON with everything that is known of each."""
    site.build()
    (broken,) = facts(site, "list", "--state", "failed")["sources"]
    assert broken["source"] == "assets/broken.scss"
    assert (broken["mount"], broken["path"]) == ("assets", "broken.scss")
    assert broken["outputs"] == ["broken.css"]
    assert facts(site, "list", "--state", "conflict")["sources"] == []
    assert site.run("list", "--state", "fine").returncode == 2
    assert set(commands_look.STATES) == set(EntryState)


def test_names_with_control_characters_are_shown_harmless(site: Site) -> None:
    """No terminal is told what to do by a file's name."""
    site.write("assets/a\x1b[31mred\n.txt", "x")
    site.build()
    assert "\x1b" not in site.run("list").stdout
    assert "\x1b" not in site.run("tree", "assets/a\x1b[31mred\n.txt").stdout


def test_a_long_list_is_not_held_in_memory(site: Site) -> None:
    """Sources come one by one, so that the first line does not wait for the last."""
    site.build()
    found, _ = config.read(str(site.root / "assetd.yml"))
    assert next(iter(inventory.sources(found)))["source"] == "assets/broken.scss"


# -- config -------------------------------------------------------------------------------


def test_config_is_an_assetd_yml_that_says_the_same(site: Site) -> None:
    """Every key with the value in force; written back, nothing has changed."""
    site.write(
        "assetd.yml",
        "mounts: {assets: {processors: [sass, copy]}, theme: }\n"
        "ignore: ['*.bak']\nsettle: {gap: 50ms}\nstore: 10MB\nplugins: []\n"
        "sass: {style: compressed, load_paths: [vendor]}\nout_dir: out/site\n",
    )
    before = facts(site, "config")
    assert before["mounts"]["assets"] == {"processors": ["sass", "copy"]}
    assert before["settle"]["gap"] == 0.05
    assert before["out_dir"] == "out/site"
    assert before["sass"]["load_paths"] == ["vendor"]
    text = site.run("config").stdout
    site.write("assetd.yml", text)
    assert facts(site, "config") == before | {"job_timeout": None}


def test_config_has_every_key_and_every_option(site: Site) -> None:
    """Whoever adds one need not think of this command."""
    project = registry.load(str(site.root / "assetd.yml"))
    shown = catalog.configuration(project)
    assert {key.name for key in config.KEYS} <= shown.keys()
    for opened in project.processors:
        for option in opened.processor.options:
            assert option.name in shown[opened.processor.name]


def test_config_prints_a_json_schema_for_editors(site: Site) -> None:
    """With the sections of the processors that are installed."""
    schema = json.loads(site.run("config", "--schema", check=True).stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["properties"]["sass"]["properties"]["style"]["enum"]
    assert schema["required"] == ["mounts"]


def test_a_broken_configuration_has_no_effective_one(site: Site) -> None:
    """Exit code 2, with every mistake and its line."""
    site.write("assetd.yml", "mounts: [assets]\nnonsense: 1\n")
    done = site.run("config")
    assert done.returncode == 2
    assert "assetd.yml:2" in done.stderr
