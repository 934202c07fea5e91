"""Which processors there are, with which options, for which mount."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from assetd import config, registry
from assetd.errors import ConfigError
from assetd.processor import Option
from assetd.registry import Opened, checked, load, open_recipe

HEAD = """\
from assetd.processor import Names, Option, Processor, Tool, same_name, suffix

def nothing(step):
    pass

def made(name, **more):
    return Processor(**{
        "name": name, "version": "1", "matches": suffix(".x"), "outputs": same_name,
        "process": nothing, **more,
    })

"""


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processors but those of the test, whatever the environment has."""
    monkeypatch.setattr(registry, "entry_points", lambda _group: ())


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a project with plugins; gives the configuration's path."""

    def write(text: str = "", **plugins: str) -> str:
        (tmp_path / "assets").mkdir(exist_ok=True)
        for name, body in plugins.items():
            (tmp_path / f"{name}.py").write_text(HEAD + body)
        listed = f"plugins: [{', '.join(f'{name}.py' for name in plugins)}]\n"
        mounts = "" if "mounts:" in text else "mounts: [assets]\n"
        file = tmp_path / "assetd.yml"
        file.write_text(text + mounts + listed)
        return str(file)

    return write


def problems(file: str) -> list[str]:
    """What is wrong with the project, as people read it."""
    with pytest.raises(ConfigError) as caught:
        load(file)
    return [str(problem) for problem in caught.value.problems]


def names(opened: Sequence[Opened]) -> list[str]:
    return [one.processor.name for one in opened]


THREE = """
a = made("last", priority=90)
b = made("first", priority=10)
c = made("extra", default=False)
"""

NEEDY = """
tooled = made("tooled", tool=lambda setting: Tool("less", None, "npm install less"))
plain = made("plain")
"""


# --- the processors -------------------------------------------------------------------------


def test_processors_are_asked_by_priority_and_then_by_name(write: Callable[..., str]) -> None:
    """The order in which they are installed or listed means nothing."""
    project = load(write(two='z = made("z")\ny = made("y")\n', one=THREE))
    assert names(project.processors) == ["first", "extra", "y", "z", "last"]


def test_all_means_every_processor_that_is_on_by_default(write: Callable[..., str]) -> None:
    """A minifier is installed long before anybody wants it."""
    project = load(write(one=THREE))
    assert names(project.enabled("assets")) == ["first", "last"]
    assert project.enabled(project.config.mounts[0]) == project.enabled("assets")


def test_a_mount_has_its_own_filter(write: Callable[..., str], tmp_path: Path) -> None:
    """Terms count from left to right; a mount without a filter has the configuration's."""
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    text = """\
processors: all extra
mounts:
  a: {processors: all -first}
  b: {processors: "extra, -extra, last"}
  c: {processors: [all, extra, -last]}
  d: {}
"""
    project = load(write(text, one=THREE))
    assert {mount.name: names(project.enabled(mount)) for mount in project.config.mounts} == {
        "a": ["last"],
        "b": ["last"],
        "c": ["first", "extra"],
        "d": ["first", "extra", "last"],
    }


def test_the_minifiers_of_the_default_filter_need_not_be_there(write: Callable[..., str]) -> None:
    """Everybody writes the default filter out before changing it."""
    load(write("processors: all -uglifyjs -cleancss\n", one=THREE))
    assert problems(write("processors: all uglifyjs\n", one=THREE)) == [
        'assetd.yml:1: processor "uglifyjs" is not installed'
    ]


def test_a_processor_without_its_tool_goes_on_taking_its_sources(
    write: Callable[..., str],
) -> None:
    """They fail and keep what they last made; copied as they are they would lose it."""
    project = load(write(one=NEEDY))
    assert names(project.enabled("assets")) == ["plain", "tooled"]
    (tooled,) = project.unavailable
    assert tooled.missing == "needs less, which is not there: npm install less"
    assert project.warnings == ()


def test_a_processor_named_without_its_tool_stays_and_is_warned_of(
    write: Callable[..., str],
) -> None:
    """Its sources fail and keep what they last made; nobody else takes them."""
    project = load(write("\nprocessors: all tooled\n", one=NEEDY))
    assert names(project.enabled("assets")) == ["plain", "tooled"]
    assert list(map(str, project.warnings)) == [
        'assetd.yml:2: processor "tooled" needs less, which is not there: npm install less'
    ]


def test_a_version_has_all_that_can_change_the_result(write: Callable[..., str]) -> None:
    """An upgraded tool or an edited plugin dirties what it made, and nothing else."""
    body = 'tooled = made("tooled", tool=lambda setting: Tool("less", "4.2"))\n'
    file = write(one=body, two='other = made("other")\n')
    before = {o.processor.name: o.version for o in load(file).processors}
    write(one=body + "# edited\n", two='other = made("other")\n')
    after = {o.processor.name: o.version for o in load(file).processors}
    assert before["tooled"].startswith("1, less 4.2, plugin ")
    assert before["tooled"] != after["tooled"]
    assert before["other"] == after["other"]


def test_an_edited_plugin_is_loaded_anew(write: Callable[..., str]) -> None:
    """Even within the same second and at the same length, which fools Python's own cache."""
    for version in ("1", "2", "3"):
        body = f'one = made("one", version="{version}")\n'
        (opened,) = load(write(one=body)).processors
        assert opened.processor.version == version


def test_a_plugin_may_use_what_looks_its_module_up(write: Callable[..., str]) -> None:
    """Dataclasses do, while they are made; so does whoever asks for `__file__`."""
    body = """
import dataclasses, os

@dataclasses.dataclass(slots=True)
class Thing:
    x: "int"

one = made(os.path.basename(__file__).removesuffix(".py"))
"""
    assert names(load(write(one=body)).processors) == ["one"]


def test_a_processor_that_a_plugin_borrows_counts_once(write: Callable[..., str]) -> None:
    """Two names for one value are one processor."""
    assert names(load(write(one='a = made("a")\nsame = a\n')).processors) == ["a"]


def test_installed_processors_are_found(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the entry points of their packages; one that is broken takes no other with it."""
    monkeypatch.undo()
    (tmp_path / "lib/fine-1.dist-info").mkdir(parents=True)
    (tmp_path / "lib/fine-1.dist-info/METADATA").write_text("Name: fine\nVersion: 1\n")
    listing = tmp_path / "lib/fine-1.dist-info/entry_points.txt"
    listing.write_text("[assetd.processors]\nfine = fine_plugin:inner.fine\n")
    (tmp_path / "lib/fine_plugin.py").write_text(
        HEAD + 'class inner:\n    fine = made("fine")\nnumber = 3\n'
    )
    (tmp_path / "lib/broken_plugin.py").write_text("\nimport fine_plugin\n1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    found = {o.processor.name: o.origin for o in load(write()).processors}
    assert found["fine"] == "fine_plugin:inner.fine"
    with listing.open("a") as more:
        more.write("broken = broken_plugin:x\nnumber = fine_plugin:number\ngone = gone_plugin:x\n")
    assert problems(write("processors: all broken\nbroken: {}\nfine: {x: 1}\n")) == [
        (
            'processor "broken" (broken_plugin:x) does not load: '
            "ZeroDivisionError: division by zero "
            f"({tmp_path}/lib/broken_plugin.py:3)"
        ),
        (
            'processor "gone" (gone_plugin:x) does not load: '
            "ModuleNotFoundError: No module named 'gone_plugin'"
        ),
        'processor "number" (fine_plugin:number) does not load: TypeError: it is int, no Processor',
        'assetd.yml:3: unknown option "fine.x"',
    ]


# --- what is wrong --------------------------------------------------------------------------

OPTIONS = """
sass = made("sass", options=(
    Option("style", str, "nested", "", choices=("nested", "compressed")),
    Option("precision", int, 5, "", minimum=0, maximum=20),
    Option("load_paths", list, (), ""),
    Option("flags", list[str], ("a",), "", choices=("a", "b")),
    Option("source_map", bool, False, ""),
    Option("ratio", float, 1.0, "", minimum=0),
    Option("more", dict, {}, ""),
    Option("banner", str, None, ""),
))
less = made("less")
"""


def test_every_problem_is_told_at_once(write: Callable[..., str]) -> None:
    """Those of the file, the plugins, the sections and the filters; the file's by line."""
    text = """\
workers: 0
processors: all -les
mounts:
  asets:
    processors: [sas]
sas: {style: compressed}
sass:
  presicion: 5
  style: compresed
mount: {a: b}
verbose: yes
"""
    file = write(text, one=OPTIONS, two="\n\nx = y\n", three="x = (\n", four="")
    assert problems(file) == [
        'assetd.yml:1: workers: expected auto or a whole number from 1 to 1024, found "0"',
        'assetd.yml:2: processor "les" is not installed (did you mean "less"?)',
        'assetd.yml:4: mounts: "asets" is not there (did you mean "assets"?)',
        'assetd.yml:5: processor "sas" is not installed (did you mean "sass"?)',
        'assetd.yml:6: processor "sas" is not installed (did you mean "sass"?)',
        'assetd.yml:8: unknown option "sass.presicion" (did you mean "precision"?)',
        (
            'assetd.yml:9: sass.style: expected nested or compressed, found "compresed" '
            '(did you mean "compressed"?)'
        ),
        'assetd.yml:10: unknown key "mount" (did you mean "mounts"?)',
        "four.py: the plugin does not load: TypeError: no Processor stands at its top level",
        (
            f"three.py:{HEAD.count(chr(10)) + 1}: the plugin does not load: "
            "SyntaxError: '(' was never closed"
        ),
        (
            f"two.py:{HEAD.count(chr(10)) + 3}: the plugin does not load: "
            "NameError: name 'y' is not defined"
        ),
    ]


def test_a_section_of_nobody_is_told(write: Callable[..., str]) -> None:
    """Whether it was meant as a key or as a processor is guessed from what it holds."""
    assert problems(write("verbose: yes\nbanana: {}\nless: fast\nout_dri: x\n", one=OPTIONS)) == [
        'assetd.yml:1: unknown key "verbose"',
        'assetd.yml:2: processor "banana" is not installed',
        'assetd.yml:3: less: expected a mapping of options, found "fast"',
        'assetd.yml:4: unknown key "out_dri" (did you mean "out_dir"?)',
    ]


def test_names_that_a_broken_plugin_may_have_are_not_told(write: Callable[..., str]) -> None:
    """They are the same mistake, and would hide it."""
    told = problems(write("processors: all banner\nbanner: {}\n", one=OPTIONS, two="exit(1)\n"))
    assert told == [f"two.py:{HEAD.count(chr(10)) + 1}: the plugin does not load: SystemExit: 1"]


def test_a_filter_that_only_takes_away_is_told(write: Callable[..., str]) -> None:
    """It would build nothing, and nobody means that."""
    nothing = 'this filter lets nothing through: start it with "all"'
    text = "processors: -less\nmounts: {assets: {processors: []}}\n"
    assert problems(write(text, one=OPTIONS)) == [
        f"assetd.yml:1: processors: {nothing}",
        f"assetd.yml:2: mounts.assets: {nothing}",
    ]


def test_two_processors_of_one_name_are_told(write: Callable[..., str]) -> None:
    """Which of them runs must not hang on an order that nobody chose."""
    assert problems(write(one='a = made("same")\n', two='b = made("same")\n')) == [
        'assetd.yml:2: two processors are called "same": one.py and two.py'
    ]
    assert problems(write(one='a = made("same")\nb = made("same")\n', two=THREE)) == [
        'assetd.yml:2: two processors are called "same": one.py and one.py'
    ]


@pytest.mark.parametrize("name", ["Banner", "a b", "all", "mounts", "-x", ""])
def test_a_name_must_fit_filters_and_sections(write: Callable[..., str], name: str) -> None:
    """Its section stands beside the keys, its name beside `all`."""
    (told,) = problems(write(one=f'a = made("{name}")\n'))
    assert told.startswith(f'assetd.yml: one.py: "{name}" is no name: lower case')


def test_a_tool_that_cannot_be_asked_is_told(write: Callable[..., str]) -> None:
    """A processor's mistake is no reason to fall over."""
    assert problems(write(one='a = made("a", tool=lambda setting: 1 / 0)\n')) == [
        'assetd.yml: processor "a": its tool cannot be asked: ZeroDivisionError: division by zero'
    ]


# --- options --------------------------------------------------------------------------------


def test_options_stand_on_top_of_the_defaults(write: Callable[..., str]) -> None:
    """A processor finds each of its options, of the type that it declared."""
    text = """\
sass:
  style: compressed
  load_paths: vendor/scss  lib
  ratio: 2
  source_map: true
  precision:
  more: {a: [1, no]}
"""
    by_name = {o.processor.name: o for o in load(write(text, one=OPTIONS)).processors}
    assert by_name["sass"].options == {
        "style": "compressed",
        "precision": 5,
        "load_paths": ["vendor/scss", "lib"],
        "flags": ["a"],
        "source_map": True,
        "ratio": 2.0,
        "more": {"a": [1, "no"]},
        "banner": None,
    }
    assert type(by_name["sass"].options["ratio"]) is float
    assert by_name["less"].options == {}


def test_the_digest_of_options_goes_by_their_values(write: Callable[..., str]) -> None:
    """Their order in the file is nothing; neither is writing a default out."""

    def digest(text: str) -> str:
        return load(write(text, one=OPTIONS)).processors[1].options_digest

    assert digest("sass: {precision: 6, style: nested}\n") == digest("sass: {precision: 6}\n")
    assert digest("sass: {precision: 6}\n") != digest("sass: {precision: 7}\n")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        (
            Option("x", int, 0, "", minimum=0, maximum=9),
            "x",
            'a whole number from 0 to 9, found "x"',
        ),
        (Option("x", int, 0, "", minimum=1), 0, "a whole number of 1 or more, found 0"),
        (Option("x", int, 0, "", maximum=9), 10, "a whole number of 9 or less, found 10"),
        (Option("x", int, 0, ""), True, "a whole number, found true"),
        (Option("x", int, 0, ""), 1.0, "a whole number, found 1.0"),
        (Option("x", int, 0, "", choices=(1, 2)), 3, "1 or 2, found 3"),
        (Option("x", float, 0, "", minimum=0), float("nan"), "a number of 0 or more, found nan"),
        (Option("x", float, 0, ""), "1", 'a number, found "1"'),
        (Option("x", bool, False, ""), 1, "true or false, found 1"),
        (Option("x", bool, False, ""), "yes", 'true or false, found "yes"'),
        (Option("x", str, "", ""), 1.5, "text, found 1.5 (put it in quotes)"),
        (Option("x", str, "", ""), ["a"], "text, found a list"),
        (Option("x", str, "", "", choices=("a", "b", "c")), "d", 'a, b or c, found "d"'),
        (Option("x", list, (), ""), {"a": 1}, "text, or a list of it, found a mapping"),
        (Option("x", list, (), ""), ["a", 1], "text, or a list of it, found 1 (put it in quotes)"),
        (Option("x", list, (), "", choices=("a",)), "a b", 'a, found "b"'),
        (Option("x", dict, {}, ""), [], "a mapping, found a list"),
    ],
)
def test_an_option_that_does_not_fit_is_told(option: Option, value: object, told: str) -> None:
    """What was expected, what was found, and what to do if that is plain."""
    with pytest.raises(ValueError, match="expected") as caught:
        checked(option, value)
    assert str(caught.value) == f"expected {told}"


# --- the workers ----------------------------------------------------------------------------


def test_a_recipe_opens_the_same_project_in_another_process(
    write: Callable[..., str], tmp_path: Path
) -> None:
    """Without YAML, without a search for entry points, and without asking a tool again."""
    asked = tmp_path / "asked"
    body = f"""
def tool(setting):
    with open({str(asked)!r}, "a") as file:
        file.write("x")
    return Tool("less", "4.2")

tooled = made("tooled", tool=tool, options=(Option("paths", list, ("a",), ""),))
unused = made("unused", default=False)
"""
    file = write("tooled: {paths: b c}\n", one=body)
    project = load(file)
    (tmp_path / "one.py").write_text("edited since, and broken (")
    script = """
import json, sys
from assetd.registry import open_recipe
project = open_recipe(json.load(sys.stdin))
(opened,) = project.enabled("assets")
print(json.dumps([
    opened.processor.name, opened.options, opened.options_digest, opened.version,
    [opened.tool.name, opened.tool.version], opened.origin, len(project.processors),
    project.config.row() == project.recipe()["config"],
    sorted({"yaml", "importlib.metadata"} & set(sys.modules)),
]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(project.recipe()),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (opened,) = project.enabled("assets")
    assert json.loads(ran.stdout) == [
        "tooled",
        {"paths": ["b", "c"]},
        opened.options_digest,
        opened.version,
        ["less", "4.2"],
        f"{tmp_path}/one.py",
        1,
        True,
        [],
    ]
    assert asked.read_text() == "x"


def test_a_recipe_that_does_not_open_is_told(write: Callable[..., str]) -> None:
    """A package that was removed meanwhile is the user's to mend, not a crash."""
    recipe = load(write(one='a = made("a")\n')).recipe()
    recipe["processors"][0]["origin"] = "gone_plugin:x"
    with pytest.raises(ConfigError) as caught:
        open_recipe(recipe)
    assert str(caught.value) == (
        'in a worker, processor "a" (gone_plugin:x) does not load: '
        "ModuleNotFoundError: No module named 'gone_plugin'"
    )


def test_the_options_of_a_project_make_its_schema(write: Callable[..., str]) -> None:
    """What an editor knows of a section is what its processor declares."""
    processors = load(write(one=OPTIONS)).processors
    made: Any = config.schema({o.processor.name: o.processor.options for o in processors})
    assert [*made["properties"]["sass"]["properties"]] == [
        *("style", "precision", "load_paths", "flags", "source_map", "ratio", "more", "banner")
    ]
