"""What people install is what we test."""

import configparser
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

import assetd

ROOT: Final = Path(__file__).resolve().parents[1]
ROOTS: Final = {"assetd": ROOT / "daemon", "assetd_processors": ROOT / "processors"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    if find_spec("hatchling") is not None:  # else pip fetches it, as `make` did to install us
        command.append("--no-build-isolation")
    made = subprocess.run(
        command,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    declared: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return declared


def in_metadata(wheel: zipfile.ZipFile, name: str) -> str:
    """The text of a file of the wheel's `dist-info` folder."""
    return wheel.read(f"assetd-{assetd.__version__}.dist-info/{name}").decode()


def test_the_wheel_holds_what_the_editable_install_gives(wheel: zipfile.ZipFile) -> None:
    """A module that only the checkout has works for us and for nobody else."""
    ours = {
        file.relative_to(root).as_posix()
        for package, root in ROOTS.items()
        for file in (root / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == ours


def test_the_packages_come_from_the_source_roots() -> None:
    """Else the tests run against some other copy that happens to be installed."""
    for package, root in ROOTS.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).resolve() == root / package / "__init__.py"


def test_the_wheel_claims_no_name_but_ours(wheel: zipfile.ZipFile) -> None:
    """`daemon` is another project's import name: installing both would overwrite one."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {*ROOTS, f"assetd-{assetd.__version__}.dist-info"}


def test_the_wheel_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    """Without `py.typed`, the types of a plugin's author stop at our door."""
    assert {f"{package}/py.typed" for package in ROOTS} <= set(wheel.namelist())


def test_there_is_one_version(wheel: zipfile.ZipFile, project: dict[str, Any]) -> None:
    """Status, wheel and project file say the same."""
    assert project["version"] == assetd.__version__
    assert Parser().parsestr(in_metadata(wheel, "METADATA"))["Version"] == assetd.__version__


def test_the_licence_comes_along(wheel: zipfile.ZipFile) -> None:
    """The licence asks for it."""
    assert in_metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert Parser().parsestr(in_metadata(wheel, "METADATA"))["License-Expression"] == "Apache-2.0"


def test_every_entry_point_leads_somewhere(wheel: zipfile.ZipFile, project: dict[str, Any]) -> None:
    """The command and each processor exist in the wheel, under the name that is declared."""
    packed = configparser.ConfigParser(delimiters=("=",))
    packed.read_string(in_metadata(wheel, "entry_points.txt"))
    declared = {
        "console_scripts": project["scripts"],
        **project["entry-points"],
    }
    assert {group: dict(packed[group]) for group in packed.sections()} == declared
    targets = [target for group in declared.values() for target in group.values()]
    for target in targets:
        module, _, _ = target.partition(":")
        assert f"{module.replace('.', '/')}.py" in wheel.namelist(), target
