"""`assetd.yml`: what it may say, and what we say of what it may not."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assetd import config, document
from assetd.config import Config, Settle, Watch
from assetd.errors import ConfigError
from assetd.processor import Option


def project(folder: Path, text: str, *folders: str) -> str:
    """A configuration file in *folder*, with its mounts beside it."""
    for name in folders or ("assets",):
        (folder / name).mkdir(parents=True, exist_ok=True)
    file = folder / "assetd.yml"
    file.write_text(text)
    return str(file)


def problems(folder: Path, text: str, *folders: str) -> list[str]:
    """What is wrong with *text*, as people read it."""
    try:
        _, found = config.read(project(folder, text, *folders))
    except ConfigError as error:
        found = error.problems
    return [str(problem) for problem in found]


def good(folder: Path, text: str, *folders: str) -> Config:
    """The configuration, in which nothing may be wrong."""
    read, found = config.read(project(folder, text, *folders))
    assert list(found) == []
    return read


def values(text: str) -> Mapping[str, Any]:
    """The values of a text in which nothing is wrong."""
    draft = config.parse(text.encode(), "assetd.yml")
    assert draft.problems == ()
    return draft.values


def complaints(text: str) -> list[str]:
    """What is wrong with a text, wherever it might stand."""
    try:
        draft = config.parse(text.encode(), "/x/assetd.yml")
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in draft.problems]


# --- what it means --------------------------------------------------------------------------


def test_one_mount_is_enough(tmp_path: Path) -> None:
    """Everything but the sources has a default."""
    read = good(tmp_path, "mounts: [assets]\n")
    mount = config.Mount("assets", f"{tmp_path}/assets", "assets", None, 1)
    assert read == Config(
        file=f"{tmp_path}/assetd.yml",
        project=str(tmp_path),
        out_dir=f"{tmp_path}/public",
        state_dir=f"{tmp_path}/.assetd",
        mounts=(mount,),
        ignore=(),
        force=(),
        processors=("all", "-uglifyjs", "-cleancss"),
        workers=max(1, len(os.sched_getaffinity(0))),
        plugins=(),
        watch=Watch("auto", 1.0),
        settle=Settle(0.02, 0.25, 0.1, 5.0),
        durability="normal",
        store_bytes=1 << 30,
        job_timeout_seconds=None,
        sections={},
        lines={"mounts": 1},
    )


def test_every_key_is_read(tmp_path: Path) -> None:
    """What can be said is heard."""
    text = """\
out_dir: build/site
state_dir: var/state
mounts:
  assets: {}
  ./theme//assets/:
    processors: all, -banner
  lib:
processors: [all, -x y]
ignore: ["*.bak", "/^drafts\\\\//"]
force: "*.sitemap"
plugins: [./tools/a.py]
workers: 3
watch: {backend: polling, interval: 1.5}
settle: {gap: 5ms, patience: 1s, deletion: 200ms, git: 1m}
durability: full
store: 500MB
job_timeout: 2m
sass:
  style: compressed
  precision: 0x10
less: null
"""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/a.py").touch()
    read = good(tmp_path, text, "assets", "theme/assets", "lib")
    assert read == Config(
        file=f"{tmp_path}/assetd.yml",
        project=str(tmp_path),
        out_dir=f"{tmp_path}/build/site",
        state_dir=f"{tmp_path}/var/state",
        mounts=(
            config.Mount("assets", f"{tmp_path}/assets", "assets", None, 4),
            config.Mount(
                "theme/assets", f"{tmp_path}/theme/assets", "theme/assets", ("all", "-banner"), 5, 6
            ),
            config.Mount("lib", f"{tmp_path}/lib", "lib", None, 7),
        ),
        ignore=("*.bak", "/^drafts\\//"),
        force=("*.sitemap",),
        processors=("all", "-x", "y"),
        workers=3,
        plugins=(f"{tmp_path}/tools/a.py",),
        watch=Watch("polling", 1.5),
        settle=Settle(0.005, 1.0, 0.2, 60.0),
        durability="full",
        store_bytes=500_000_000,
        job_timeout_seconds=120.0,
        sections={
            "sass": config.Section(
                18, {"style": "compressed", "precision": 16}, {"style": 19, "precision": 20}
            ),
            "less": config.Section(21, {}, {}),
        },
        lines=read.lines,
    )
    assert read.lines["processors"] == 8


def test_a_configuration_crosses_a_pipe(tmp_path: Path) -> None:
    """A worker gets it as JSON; sections and lines are for the owner's messages only."""
    text = "mounts: {assets: {processors: all}}\nignore: [a]\nsettle: {gap: 1s}\nsass: {a: 1}\n"
    read = good(tmp_path, text)
    crossed = Config.of(json.loads(json.dumps(read.row())))
    assert crossed.row() == read.row()
    assert crossed.mounts == read.mounts
    assert (crossed.settle, crossed.watch) == (read.settle, read.watch)


def test_the_nearest_file_above_counts(tmp_path: Path) -> None:
    """As with git, every command works from every folder of the project."""
    deep = tmp_path / "a/b"
    deep.mkdir(parents=True)
    (tmp_path / "assetd.yaml").touch()
    assert config.find(str(deep)) == f"{tmp_path}/assetd.yaml"
    (tmp_path / "assetd.yml").touch()
    assert config.find(str(deep)) == f"{tmp_path}/assetd.yml"
    (tmp_path / "a/assetd.yml").mkdir()
    (deep / "assetd.yaml").touch()
    assert config.find(str(deep)) == f"{deep}/assetd.yaml"
    assert config.find(str(tmp_path / "a")) == f"{tmp_path}/assetd.yml"
    assert config.find("/proc/self") is None


def test_paths_are_real_whatever_links_lead_there(tmp_path: Path) -> None:
    """A watch on a link is deaf, and two names for one folder are one folder."""
    shared = tmp_path / "shared"
    shared.mkdir()
    real = tmp_path / "real"
    (real / "assets").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    (real / "theme").symlink_to(shared)
    (real / "public").symlink_to(tmp_path / "www")
    (real / "assetd.yml").write_text("mounts: [assets, theme, .]")
    read, _ = config.read(str(tmp_path / "link/assetd.yml"))
    assert read.project == str(real)
    assert read.out_dir == f"{tmp_path}/www"
    places = [(m.name, m.folder, m.place) for m in read.mounts]
    assert places == [
        ("assets", f"{real}/assets", "assets"),
        ("theme", str(shared), str(shared)),
        (".", str(real), ""),
    ]


def test_a_project_may_be_its_own_mount(tmp_path: Path) -> None:
    """With the outputs elsewhere; the state folder in it is ignored anyway."""
    (tmp_path / "site").mkdir()
    read = good(tmp_path / "site", "mounts: [.]\nout_dir: ../public\n")
    assert [(m.name, m.place) for m in read.mounts] == [(".", "")]


@pytest.mark.parametrize(
    ("text", "duration"),
    [("500ms", 0.5), ("2s", 2.0), ("1m", 60.0), ("1.5h", 5400.0), ("3", 3.0), ("35 ms", 0.035)],
)
def test_a_duration_has_a_unit_or_is_seconds(text: str, duration: float) -> None:
    """On the command line as in the file."""
    assert duration == document.seconds(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1e9", "2 weeks", "12:30", "inf", "nan", "1S"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """`12:30` is not 750, whatever YAML 1.1 says."""
    with pytest.raises(ValueError, match="expected a duration such as 500ms or 2s, found"):
        document.seconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("0", 0), ("1024", 1024), ("5B", 5), ("500MB", 500_000_000), ("2GiB", 2 << 30)),
        *(("2gib", 2 << 30), ("1.5 KiB", 1536), ("1kB", 1000), ("3TB", 3 * 10**12)),
    ],
)
def test_a_size_has_a_unit_or_is_bytes(text: str, size: int) -> None:
    """Powers of ten and of two, as the unit says."""
    assert size == document.size(text)


def test_a_word_is_the_word_that_was_written() -> None:
    """YAML 1.1 takes `no` for false and `12:30` for 750; nobody who writes a name does."""
    read = values("mounts: [no, 12:30, 0x10, ~user, 1_000]\nignore: [on, yes, 1.10]\n")
    assert [m.name for m in read["mounts"]] == ["no", "12:30", "0x10", "~user", "1_000"]
    assert read["ignore"] == ("on", "yes", "1.10")
    assert values("mounts: [a]\ndurability: off\n")["durability"] == "off"


def test_the_options_of_a_processor_follow_yaml_1_2() -> None:
    """Plain words are text, unless they are null, true, false or a number; quoted ones always."""
    text = """\
mounts: [a]
x:
  values: [no, yes, on, off, y, 12:30, 1_000, 2001-01-01, "true", '1', !!str 5, =, <<]
  nulls: [~, null, NULL, ]
  booleans: [true, False]
  numbers: [0, -7, +7, 012, 0o17, 0xfF, 1., .5, 1e3, -1.5E-2, .inf, -.INF]
  nested: {a: {1: [b]}}
"""
    section = config.parse(text.encode(), "assetd.yml").sections["x"]
    inf = float("inf")
    assert section.values == {
        "values": [
            *("no", "yes", "on", "off", "y", "12:30", "1_000", "2001-01-01"),
            *("true", "1", "5", "=", "<<"),
        ],
        "nulls": [None, None, None],
        "booleans": [True, False],
        "numbers": [0, -7, 7, 12, 15, 255, 1.0, 0.5, 1000.0, -0.015, inf, -inf],
        "nested": {"a": {"1": ["b"]}},
    }
    assert section.lines == {"values": 3, "nulls": 4, "booleans": 5, "numbers": 6, "nested": 7}


def test_a_key_without_a_value_is_not_given() -> None:
    """People comment out what stood below it."""
    assert values("mounts: [a]\nout_dir:\nignore:\n#  - x\nsettle: {gap: }\n") == values(
        "mounts: [a]"
    )


# --- what is wrong --------------------------------------------------------------------------


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Whoever mends a file wants to run it once more, not once for each mistake."""
    text = """\
out_dir: .
mount: [assets]
mounts:
  asets:
    procesors: all
workers: no
ignore: ["*.bak", "/(/", ""]
watch: {backend: inotfy, interval: 0}
settle: fast
durability: {}
store: [1]
job_timeout: -1
plugins: [tools.py]
workers: 4
"""
    assert sorted(problems(tmp_path, text), key=lambda p: int(p.split(":")[1])) == [
        'assetd.yml:1: out_dir: "." is the project folder, or above it: name a folder of its own',
        'assetd.yml:4: mounts: "asets" is not there (did you mean "assets"?)',
        'assetd.yml:5: unknown key "mounts.asets.procesors" (did you mean "processors"?)',
        'assetd.yml:6: workers: expected auto or a whole number from 1 to 1024, found "no"',
        (
            'assetd.yml:7: ignore: the pattern "/(/" is no regular expression: '
            "missing ), unterminated subpattern at position 0"
        ),
        'assetd.yml:7: ignore: the pattern "" is empty',
        (
            'assetd.yml:8: watch.backend: expected auto, inotify or polling, found "inotfy" '
            '(did you mean "inotify"?)'
        ),
        'assetd.yml:8: watch.interval: expected 10ms or more, found "0"',
        'assetd.yml:9: settle: expected a mapping, found "fast"',
        "assetd.yml:10: durability: expected a single value, found a mapping",
        "assetd.yml:11: store: expected a single value, found a list",
        'assetd.yml:12: job_timeout: expected a duration such as 500ms or 2s, found "-1"',
        'assetd.yml:13: plugins: "tools.py" is not a file that is there',
        'assetd.yml:14: "workers" is there already, in line 6',
    ]


NO_MOUNTS = 'no mounts: say where the sources are, as in "mounts: [assets]"'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", [f"assetd.yml: {NO_MOUNTS}"]),
        ("# nothing\n---\n...\n", [f"assetd.yml: {NO_MOUNTS}"]),
        ("out_dir: x\nmounts: []\n", [f"assetd.yml:2: {NO_MOUNTS}"]),
        ("mounts:\n", [f"assetd.yml:1: {NO_MOUNTS}"]),
        ("- a\n", ["assetd.yml:1: expected a mapping of keys, found a list"]),
        ("\nassets\n", ['assetd.yml:2: expected a mapping of keys, found "assets"']),
        ("mounts: [a]\n---\nb: c\n", ["assetd.yml:2: a second document: there may be one"]),
        ("mounts: [a]\n? [b]\n: c\n", ["assetd.yml:2: expected text as a key, found a list"]),
        ("mounts:\n- {a: b}\n", ["assetd.yml:2: mounts: expected a single value, found a mapping"]),
        ('mounts: [a, ""]\n', ['assetd.yml:1: mounts: expected a path, found ""']),
        ('mounts: ["a\\0"]\n', ['assetd.yml:1: mounts: expected a path, found "a\\x00"']),
        (
            "mounts: [a]\nignore: &x [b]\nforce: *x\n",
            ["assetd.yml:3: aliases (*x) do not work here: write it out"],
        ),
        (
            "mounts: [!!python/name:os.system a]\n",
            [
                (
                    'assetd.yml:1: tags ("tag:yaml.org,2002:python/name:os.system") '
                    "do not work here: leave it out"
                )
            ],
        ),
        (
            "mounts: [a]\nx: !local {}\n",
            ['assetd.yml:2: tags ("!local") do not work here: leave it out'],
        ),
    ],
)
def test_what_is_no_configuration_is_told_by_its_line(text: str, told: list[str]) -> None:
    """Valid YAML is not enough, and most of YAML is not needed."""
    assert told == complaints(text)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (b"a: b\n\tc: d\n", 2, "; indent with spaces, not with tabs"),
        (b"a: [b\nc: d\n", 2, "while parsing a flow sequence, "),
        (b"a: b\n c: d\n", 2, "mapping values are not allowed"),
        (b"a: 'b\n", 2, "while scanning a quoted scalar, "),
        (b"a: b\nc: \xff\n", 2, "not UTF-8"),
        (b"a: b\n\nc: \x07\n", 3, 'the character "\\x07" is not allowed'),
        (b"a: *b\n", 1, "aliases (*b) do not work here"),
        (b"a: " + b"[" * 100_000, 1, "nested deeper than 20 levels"),
        (b"a: " + b"{b: " * 100_000, 1, "nested deeper than 20 levels"),
        (b"- " * 500_000, 1, "nested deeper than 20 levels"),
        (b"a" * (document.SIZE_LIMIT + 1), None, "larger than 1 MiB: that is no configuration"),
        (b"", None, "no mounts"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_text_that_cannot_be_read_is_told_by_its_line(
    loader: str, text: bytes, line: int | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with libyaml and without it."""
    if loader == "SafeLoader":
        monkeypatch.delattr(yaml, "CSafeLoader")
    try:
        found = config.parse(text, "/x/assetd.yml").problems
    except ConfigError as error:
        found = error.problems
    assert told in found[0].message
    assert ("assetd.yml", line) == (found[0].file, found[0].line)


def test_aliases_cannot_blow_up() -> None:
    """Nine lines of them would stand for a billion values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{n}: &{n} [{', '.join(f'*{m}' for _ in range(10))}]"
        for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert sum("aliases" in told for told in complaints("\n".join(lines))) == 8 * 10


def test_a_message_is_harmless_on_a_terminal() -> None:
    """What was found is shown, not obeyed, and not at any length."""
    assert complaints('mounts: [a]\nworkers: "\\e[31m"\n') == [
        'assetd.yml:2: workers: expected auto or a whole number from 1 to 1024, found "\\x1b[31m"'
    ]
    assert len(complaints(f"mounts: [a]\nworkers: {'x' * 10_000}\n")[0]) < 200


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """It was asked for by name."""
    with pytest.raises(ConfigError) as caught:
        config.read(str(tmp_path / "assetd.yml"))
    assert str(caught.value) == f"{tmp_path}/assetd.yml: cannot be read: No such file or directory"


IN_EACH_OTHER = "lie one in the other: keep them apart"
OURS = "what is in there is made by assetd"
TOO_HIGH = "is the project folder, or above it: name a folder of its own"
NO_FILE = "is not a file that is there"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mounts: [a, a/b]", f'mounts: "a/b" and "a" in line 1 {IN_EACH_OTHER}'),
        ("mounts: [a/b, a]", f'mounts: "a" and "a/b" in line 1 {IN_EACH_OTHER}'),
        ("mounts: [a, ./a/]", 'mounts: "a" is the same folder as "a" in line 1: list it once'),
        ("mounts: [a, link]", 'mounts: "link" is the same folder as "a" in line 1: list it once'),
        ("mounts: [file]", 'mounts: "file" is a file: mounts are folders'),
        ("mounts: [a/bb]", 'mounts: "a/bb" is not there (did you mean "a/b"?)'),
        ("mounts: [zzz/y]", 'mounts: "zzz/y" is not there'),
        ("mounts: [public/x]", f'mounts: "public/x" lies in out_dir: {OURS}'),
        ("mounts: [public]", f'mounts: "public" lies in out_dir: {OURS}'),
        ("{mounts: [a], out_dir: a/o}", 'out_dir: lies in the mount "a": keep them apart'),
        ("{mounts: [a], out_dir: link/o}", 'out_dir: lies in the mount "a": keep them apart'),
        ("mounts: [.]", 'out_dir: lies in the mount ".": keep them apart'),
        ("{mounts: [a], state_dir: a}", f'mounts: "a" lies in state_dir: {OURS}'),
        ("{mounts: [a/b], state_dir: a}", f'mounts: "a/b" lies in state_dir: {OURS}'),
        ("{mounts: [a], state_dir: public}", f"out_dir and state_dir {IN_EACH_OTHER}"),
        ("{mounts: [a], state_dir: public/s}", f"out_dir and state_dir {IN_EACH_OTHER}"),
        ("{mounts: [a], out_dir: .assetd/o}", f"out_dir and state_dir {IN_EACH_OTHER}"),
        ("{mounts: [a], out_dir: ..}", f'out_dir: ".." {TOO_HIGH}'),
        ("{mounts: [a], out_dir: /}", f'out_dir: "/" {TOO_HIGH}'),
        ("{mounts: [a], state_dir: .}", f'state_dir: "." {TOO_HIGH}'),
        ("{mounts: [a], out_dir: file}", 'out_dir: "file" cannot be a folder: "file" is a file'),
        (
            "{mounts: [a], out_dir: file/x}",
            'out_dir: "file/x" cannot be a folder: "file" is a file',
        ),
        ("{mounts: [a], plugins: fil}", f'plugins: "fil" {NO_FILE} (did you mean "file"?)'),
        ("{mounts: [a], plugins: a}", f'plugins: "a" {NO_FILE}'),
    ],
)
def test_folders_that_do_not_fit_together_are_told(tmp_path: Path, text: str, told: str) -> None:
    """Outputs that are sources, and sources that are outputs, never come to rest."""
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "file").touch()
    assert problems(tmp_path, text, "a/b", "public/x") == [f"assetd.yml:1: {told}"]


def test_the_state_folder_may_lie_in_a_mount(tmp_path: Path) -> None:
    """It is ignored wherever it is."""
    good(tmp_path, "{mounts: [assets], state_dir: assets/.state}")


def test_with_problems_there_still_is_a_configuration(tmp_path: Path) -> None:
    """A daemon that runs with the one before is found by its state folder."""
    read, found = config.read(project(tmp_path, "state_dir: var\nworkers: many\n"))
    assert read.state_dir == f"{tmp_path}/var"
    assert len(found) == 2


# --- for editors ----------------------------------------------------------------------------


def test_the_schema_has_every_key_and_every_option() -> None:
    """It is made from the tables that the parser reads by, so it cannot be behind."""
    options = (
        Option("style", str, "nested", "How it is laid out.", choices=("nested", "compressed")),
        Option("precision", int, 5, "Digits.", minimum=0, maximum=20),
        Option("paths", list, (), "Where to look."),
    )
    made = json.loads(json.dumps(config.schema({"sass": options})))
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["required"] == ["mounts"]
    assert set(made["properties"]) == {*(key.name for key in config.KEYS), "sass"}
    assert made["properties"]["sass"]["properties"] == {
        "style": {
            "type": "string",
            "enum": ["nested", "compressed"],
            "default": "nested",
            "description": "How it is laid out.",
        },
        "precision": {
            "type": "integer",
            "minimum": 0,
            "maximum": 20,
            "default": 5,
            "description": "Digits.",
        },
        "paths": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "default": [],
            "description": "Where to look.",
        },
    }


def test_every_key_is_described_in_a_sentence() -> None:
    """The description is what an editor shows beside the key."""
    keys = (*config.KEYS, *config.MOUNT_KEYS, *config.WATCH_KEYS, *config.SETTLE_KEYS)
    assert [key.name for key in keys if not key.help.endswith(".") or key.help.count(".") > 1] == []


def test_yaml_is_imported_only_to_read(tmp_path: Path) -> None:
    """`assetd status` would be half again as slow."""
    import subprocess

    code = "import sys, assetd.config; print('yaml' in sys.modules)"
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=path, cwd=tmp_path, capture_output=True, check=True
    )
    assert ran.stdout == b"False\n"


# --- fuzzing --------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *(f"{key.name}: " for key in config.KEYS),
        *("mounts: [a]\n", "\n", "\n  ", "\t", "- ", ": ", ", ", "[", "]", "{", "}", "? ", "&a "),
        *("*a", "!!str ", "!x ", "'", '"', "|\n ", ">", "#", "---\n", "...\n", "%YAML 1.1\n"),
        *("~", "no", "12:30", "1e999", "9" * 5000, "0x", ".nan", "2GiB", "5ms", "/(/", "all -x"),
        *("gap: ", "backend: ", "a", "..", "/", "\\0", '"\\ud800"', '"\\0"', "\x85", "\u2028"),
        *("\ud7ff", "\U0001f600", "<<: "),
    ]
)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(WORDS, max_size=30).map(lambda words: "".join(words).encode()),
    )
)
@example(b"\xef\xbb\xbfmounts: [a]\n")
@example(b'mounts: ["\\ud800"]\n')
@example(b"? ? ? a")
def test_no_bytes_do_more_than_raise_a_config_error(text: bytes) -> None:
    """A file that somebody is in the middle of writing must not end the daemon."""
    try:
        draft = config.parse(text, "/nowhere/at/all/assetd.yml")
        read, found = config.resolve(draft, "/nowhere/at/all/assetd.yml")
    except ConfigError as error:
        found = error.problems
        assert found != ()
    else:
        assert Config.of(json.loads(json.dumps(read.row()))).row() == read.row()
    assert all(str(problem).isprintable() for problem in found)
