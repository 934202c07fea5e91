"""Completion in real shells: what a person gets who presses Tab."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ASSETD: Final = (sys.executable, "-P", "-m", "assetd")
SECONDS: Final = 30


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Makes the script for a shell."""

    def make(shell: str) -> Path:
        text = subprocess.run(
            [*ASSETD, "completion", shell], capture_output=True, text=True, check=True
        ).stdout
        path = tmp_path / f"assetd.{shell}"
        path.write_text(text)
        return path

    return make


def in_bash(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    code = f"""
        source {script}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
        COMP_CWORD={len(words) - 1}
        _shtab_assetd assetd '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    return set(done.stdout.split())


def in_zsh(script: Path, typed: str, awaited: str) -> str:
    """What stands on the command line of an interactive zsh after Tab."""
    code = f"""
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z "PS1='> '; autoload -U compinit; compinit -u -D; \
            eval \\"\\$(cat {script})\\"; echo rea''dy"
        zpty -r -m z seen '*ready*'
        zpty -w -n z $'{typed}\\t'
        zpty -r -m z seen '*{awaited}*' && print -r -- "$seen"
        zpty -d z
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|.\x08", "", done.stdout)


def in_fish(script: Path, typed: str) -> set[str]:
    """What fish offers for a command line."""
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C '{typed}'"],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


def test_bash_completes_commands_options_and_choices(script: Callable[[str], Path]) -> None:
    """Options belong to their command."""
    needs("bash")
    path = script("bash")
    assert in_bash(path, "assetd", "st") == {"start", "status", "stop"}
    assert in_bash(path, "assetd", "build", "--fo") == {"--force"}
    assert in_bash(path, "assetd", "status", "--fo") == set()
    assert in_bash(path, "assetd", "completion", "") >= {"bash", "zsh", "fish"}


def test_bash_completes_files_where_a_path_is_wanted(
    script: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sources and outputs."""
    needs("bash")
    (tmp_path / "site.scss").touch()
    monkeypatch.chdir(tmp_path)
    assert in_bash(script("bash"), "assetd", "why", "site") == {"site.scss"}


def test_zsh_completes_commands_and_choices(script: Callable[[str], Path]) -> None:
    """In an interactive shell, as it is typed."""
    needs("zsh")
    assert "assetd completion fish" in in_zsh(script("zsh"), "assetd completion f", "fish")
    assert "assetd resume" in in_zsh(script("zsh"), "assetd resu", "resume")


def test_fish_completes_commands_and_choices(script: Callable[[str], Path]) -> None:
    """With their descriptions."""
    needs("fish")
    path = script("fish")
    assert in_fish(path, "assetd st") == {"start", "status", "stop"}
    assert in_fish(path, "assetd completion ") >= {"bash", "zsh", "fish"}


def test_completion_for_another_shell_says_which_there_are() -> None:
    """Exit code 2."""
    done = subprocess.run([*ASSETD, "completion", "tcsh"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"'bash', 'zsh', 'fish'" in done.stderr
