"""`assetd processors` and `assetd tools`: what there is, what is missing, and what to type."""

import json
from pathlib import Path

import pytest

from assetd.testing import Site

PLUGIN = """
from assetd.processor import Option, Processor, Tool, same_name, suffix

mine = Processor(
    name="mine", version="7", matches=suffix(".x"), outputs=same_name, process=print,
    options=(Option("size", int, 3, "How much.", minimum=1, maximum=9),),
    tool=lambda setting: Tool("grinder", None, "buy one"),
)
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with a processor whose tool is not there."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets]\nplugins: [mine.py]\nmine: {size: 4}\n")
    site.write("mine.py", PLUGIN)
    return site


def test_every_processor_has_a_row(site: Site) -> None:
    """Whoever misses one sees why, and what to type."""
    rows = {row.split()[0]: row for row in site.run("processors", check=True).stdout.splitlines()}
    assert rows["copy"].split() == ["copy", "used", "by", "assets"]
    assert rows["mine"].split(None, 2)[2] == "unavailable, grinder is not there: buy one"


def test_scripts_get_all_that_there_is_to_know(site: Site) -> None:
    """Keys are only ever added to."""
    answer = json.loads(site.run("processors", "mine", "--json", check=True).stdout)
    assert answer == {
        "schema": 1,
        "processors": [
            {
                "name": "mine",
                "version": "7",
                "origin": str(site.root / "mine.py"),
                "tool": {"name": "grinder", "version": None},
                "available": False,
                "reason": "grinder is not there",
                "cure": "buy one",
                "default": True,
                "mounts": ["assets"],
                "options": [
                    {
                        "name": "size",
                        "type": "int",
                        "default": 3,
                        "value": 4,
                        "choices": [],
                        "minimum": 1,
                        "maximum": 9,
                        "help": "How much.",
                    }
                ],
            }
        ],
    }


def test_a_name_brings_its_options(site: Site) -> None:
    """With what they are here."""
    lines = site.run("processors", "mine", check=True).stdout.splitlines()
    assert lines[0] == "mine 7"
    assert lines[-7:] == [
        *("size: int; 1 to 9", "  How much.", "  default 3, here 4", ""),
        *("in assetd.yml, for example:", "  mine:", "    size: 4"),
    ]


def test_a_name_that_there_is_not_is_told(site: Site) -> None:
    """With the one that was meant."""
    done = site.run("processors", "min")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'assetd: processor "min" is not installed (did you mean "mine"?)\n'


def test_tools_that_cannot_be_installed_are_one_line(tmp_path: Path, site: Site) -> None:
    """Not a traceback."""
    (tmp_path / "file").write_text("")
    done = site.run("tools", "install", XDG_DATA_HOME=str(tmp_path / "file"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("assetd: cannot write to ")
