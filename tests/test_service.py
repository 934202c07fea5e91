"""`assetd service`: the units' names and texts, what is written and removed, and what is refused.

What a real service manager makes of them is in `test_systemd`.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from assetd import deployment, service
from assetd.errors import UsageError
from assetd.service import Scope, Setting, Unit, Written
from assetd.testing import Site

ROOT: Final = Path(__file__).resolve().parents[1]
PATHS: Final = (
    "/",
    "/srv/site",
    "/srv/my-site",
    "/srv/.hidden",
    "/.hidden",
    "/srv/a b",
    "/srv/100%",
    '/srv/"quoted"',
    "/srv/back\\slash",
    "/srv/$HOME",
    "/srv/größe",
    "/srv/a:b_c.d",
)
SETTING: Final = Setting(
    description="assetd: builds the web assets of /srv/site, and keeps them right",
    words=("/opt/venv/bin/python", "-m", "assetd", "run", "--config", "/srv/site/assetd.yml"),
    writable=("/srv/site", "/srv/site/public", "/var/www/site"),
    seen=("/opt/venv",),
    environment=(("PATH", "/opt/venv/bin:/usr/bin"),),
    systemd=252,
    user=None,
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site").mkdir()
    return Site(tmp_path / "site")


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return service.unit(Scope.USER, "/srv/site", {"XDG_CONFIG_HOME": str(tmp_path)})


def lines(setting: Setting, scope: Scope = Scope.USER) -> list[str]:
    return service.settings(service.unit(scope, "/srv/site", {}), setting).splitlines()


# -- names and texts --------------------------------------------------------------------------


@pytest.mark.parametrize("scope", Scope)
def test_the_packaged_units_are_those_of_the_folder(scope: Scope) -> None:
    """`systemd/` is what people read, the package what is installed: one text.

    After a change: `cp systemd/*.service daemon/assetd/units/`.
    """
    assert service.template(scope) == (ROOT / "systemd" / scope.template).read_text()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_escaped_as_systemd_escapes_it(path: str) -> None:
    """Else `%f` in the unit names another folder than the drop-in does."""
    if shutil.which("systemd-escape") is None:
        pytest.skip("there is no systemd-escape here (Debian: apt install systemd)")
    done = subprocess.run(
        ["systemd-escape", "--path", path], capture_output=True, text=True, check=True
    )
    assert service.escape(path) == done.stdout.rstrip("\n")


def test_each_project_has_a_unit_of_its_own(tmp_path: Path) -> None:
    """Several projects of one user do not get into each other's way."""
    here = {"XDG_CONFIG_HOME": str(tmp_path)}
    one = service.unit(Scope.USER, "/srv/site", here)
    assert one.name == "assetd-srv-site.service"
    assert one.file == f"{tmp_path}/systemd/user/assetd-srv-site.service"
    assert one.drop_in == f"{one.file}.d/50-project.conf"
    system = service.unit(Scope.SYSTEM, "/srv/my-site", here)
    assert system.name == "assetd@srv-my\\x2dsite.service"
    assert system.file == "/etc/systemd/system/assetd@.service"


def test_a_path_that_is_too_long_is_refused() -> None:
    """All that `systemctl` would say is `Invalid argument`."""
    with pytest.raises(UsageError, match=r"too long a path for a unit .* of 255"):
        service.unit(Scope.USER, "/" + "x" * 250, {})


def test_words_are_quoted_and_nothing_in_them_is_expanded() -> None:
    """`%` and `$` mean something to systemd, but not in the name of a folder."""
    found = lines(replace(SETTING, words=("/usr/bin/assetd", '/srv/a "b" 5% $HOME c\\d')))
    assert r'ExecStart="/usr/bin/assetd" "/srv/a \"b\" 5%% $$HOME c\\d"' in found


@pytest.mark.parametrize("path", ["/srv/a\nExecStartPre=rm", "/srv/a\x1b[0m", "/srv/\udcff"])
def test_what_such_a_file_cannot_hold_is_refused(path: str) -> None:
    """A line feed in a folder's name is no way to another setting."""
    with pytest.raises(UsageError, match="expected UTF-8 without control characters"):
        lines(replace(SETTING, writable=(path,)))


def test_only_the_outermost_folders_are_named() -> None:
    """What is below the project is writable with it; an output root elsewhere is one more."""
    found = lines(SETTING)
    assert 'ReadWritePaths="/srv/site" "/var/www/site"' in found
    assert found.index("ReadWritePaths=") < found.index(
        'ReadWritePaths="/srv/site" "/var/www/site"'
    )


@pytest.mark.parametrize(("version", "expected"), [(252, False), (253, True), (256, True)])
def test_notify_reload_is_used_where_there_is_one(version: int, expected: bool) -> None:
    """An older systemd would ignore the line and take the service for a simple one."""
    found = lines(replace(SETTING, systemd=version))
    assert ("Type=notify-reload" in found) is expected
    assert ("ExecReload=" in found) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("systemd 252 (252.39-1~deb12u2)\n+PAM", 252), ("systemd 257\n", 257), ("nonsense", 0)],
)
def test_the_version_is_read(text: str, expected: int) -> None:
    """Of what `systemctl --version` prints."""
    assert service.version(text) == expected


def test_a_project_in_the_temporary_folder_is_not_hidden() -> None:
    """`PrivateTmp=yes` would show an empty one."""
    assert "PrivateTmp=no" not in lines(SETTING)
    assert "PrivateTmp=no" in lines(replace(SETTING, writable=("/tmp/site",)))
    assert "PrivateTmp=no" in lines(replace(SETTING, seen=("/var/tmp/venv",)))
    assert "PrivateTmp=no" not in lines(replace(SETTING, writable=("/tmpfiles",)))


def test_a_service_of_the_system_says_who_it_runs_as() -> None:
    """And one of a user does not."""
    assert "User=kim" in lines(replace(SETTING, user="kim"), Scope.SYSTEM)
    assert not [line for line in lines(SETTING) if line.startswith("User=")]


# -- writing and removing ---------------------------------------------------------------------


def test_what_is_written_is_removed_again(unit: Unit, tmp_path: Path) -> None:
    """Also the folder of the drop-in, so that nothing is left."""
    text = service.settings(unit, SETTING)
    assert service.write(unit, text) == {unit.file: Written.NEW, unit.drop_in: Written.NEW}
    assert service.is_installed(unit)
    assert service.write(unit, text) == {unit.file: Written.SAME, unit.drop_in: Written.SAME}
    changed = service.settings(unit, replace(SETTING, systemd=255))
    assert service.write(unit, changed) == {unit.file: Written.SAME, unit.drop_in: Written.CHANGED}
    removed = service.remove(unit)
    assert removed == {unit.drop_in: Written.REMOVED, unit.file: Written.REMOVED}
    assert not service.is_installed(unit)
    assert [p for p in tmp_path.rglob("*") if p.is_file() or p.name.endswith(".d")] == []


def test_people_s_own_settings_stay(unit: Unit) -> None:
    """`systemctl edit` put them there, and they are there for the next installation."""
    service.write(unit, service.settings(unit, SETTING))
    override = Path(unit.drop_in).with_name("override.conf")
    override.write_text("[Service]\nNice=5\n")
    service.remove(unit)
    assert override.read_text() == "[Service]\nNice=5\n"


@pytest.mark.parametrize("which", ["file", "drop_in"])
def test_a_file_of_somebody_else_is_neither_replaced_nor_removed(unit: Unit, which: str) -> None:
    """The message says which it is, and what to do."""
    foreign = Path(unit.file if which == "file" else unit.drop_in)
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Unit]\nDescription=mine\n")
    with pytest.raises(UsageError, match=r":1: expected '# .*', found '\[Unit\]'"):
        service.write(unit, service.settings(unit, SETTING))
    with pytest.raises(UsageError, match=r":1: expected '# .*', found '\[Unit\]'"):
        service.remove(unit)
    assert foreign.read_text() == "[Unit]\nDescription=mine\n"
    assert [p for p in foreign.parent.iterdir() if p != foreign] == []


def test_the_system_s_unit_goes_with_its_last_project(tmp_path: Path) -> None:
    """One file serves all projects of the machine."""
    units = []
    for name in ("one", "two"):
        unit = service.unit(Scope.SYSTEM, f"/srv/{name}", {})
        unit = replace(
            unit,
            file=str(tmp_path / "assetd@.service"),
            drop_in=str(tmp_path / f"{unit.name}.d" / service.DROP_IN),
        )
        service.write(unit, service.settings(unit, SETTING))
        units.append(unit)
    one, two = units
    assert service.remove(one) == {one.drop_in: Written.REMOVED}
    assert service.remove(two) == {two.drop_in: Written.REMOVED, two.file: Written.REMOVED}


# -- what the command refuses -----------------------------------------------------------------


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no service manager of a user answers, and none is written to."""
    nowhere = {
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "DBUS_SESSION_BUS_ADDRESS": "",
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "assetd", "service", *words],
        cwd=folder,
        env={**os.environ, **nowhere, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_systemctl_it_says_what_to_do_instead(site: Site) -> None:
    """Not every machine has systemd."""
    done = run(site.root, "install", "--user", PATH=str(site.root))
    assert done.returncode == 2
    assert "there is no systemctl here" in done.stderr
    assert "`assetd start` runs it in the background" in done.stderr
    assert not (site.root / "config").exists()


def test_without_a_manager_of_the_user_it_says_how_to_get_one(site: Site) -> None:
    """Over su, sudo and ssh to a machine without logins, there is none."""
    if shutil.which("systemctl") is None:
        pytest.skip("there is no systemctl here (Debian: apt install systemd)")
    done = run(site.root, "install", "--user")
    assert done.returncode == 2
    assert "your own systemd does not answer" in done.stderr
    assert "`loginctl enable-linger " in done.stderr
    assert not (site.root / "config").exists()
    assert not (site.root / "public").exists()


def test_a_service_of_the_system_takes_root(site: Site) -> None:
    """It is said before anything is touched."""
    as_somebody = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if os.geteuid() == 0:
        trial = subprocess.run([*as_somebody, "true"], capture_output=True, check=False)
        if trial.returncode != 0:
            pytest.skip("no user namespace can be made here, and we are root")
    done = subprocess.run(
        [*as_somebody, sys.executable, "-P", "-m", "assetd", "service", "install", "--system"],
        cwd=site.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--system takes root" in done.stderr


def test_without_a_configuration_nothing_is_installed(tmp_path: Path) -> None:
    """A service that could not start would be installed otherwise."""
    done = run(tmp_path, "install", "--user")
    assert done.returncode == 2
    assert "`assetd init` writes one" in done.stderr


def test_to_uninstall_what_is_not_installed_is_no_error(site: Site) -> None:
    """Twice is as good as once, also where there is no service manager."""
    done = run(site.root, "uninstall", "--user")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith(": was not installed")


def test_a_user_is_chosen_for_the_system_only(site: Site) -> None:
    """A service of yours can run as nobody else."""
    done = run(site.root, "install", "--user", "--run-as", "kim")
    assert done.returncode == 2
    assert "--run-as goes with --system" in done.stderr


# -- a user of its own ------------------------------------------------------------------------


@pytest.fixture
def told(unit: Unit) -> deployment._Told:
    if os.geteuid() != 0:
        pytest.skip("only root hands anything over")
    return deployment._Told(unit)


def test_the_folders_that_it_makes_are_the_user_s(told: deployment._Told, tmp_path: Path) -> None:
    """The service could write nothing in a folder of root's."""
    folder = tmp_path / "public"
    deployment._hand_over(told, str(folder), "daemon")
    assert (folder.owner(), folder.group()) == ("daemon", "daemon")
    assert told.folders == [str(folder)]
    deployment._hand_over(told, str(folder), "daemon")
    assert told.folders == [str(folder)]


def test_folders_of_somebody_else_are_not_handed_over(tmp_path: Path) -> None:
    """What is in them is not ours to give away: the one command to do it is told."""
    folders = [str(tmp_path / name) for name in ("public", ".assetd", "not-yet")]
    for folder in folders[:2]:
        os.mkdir(folder)
    with pytest.raises(UsageError) as caught:
        deployment._check_owner(folders, "daemon", creates=False)
    me = Path(folders[0]).owner()
    assert str(caught.value).startswith(
        f"{folders[0]} belongs to {me} and {folders[1]} belongs to {me}, and the service runs as "
        f"daemon: `chown -R daemon {folders[0]} {folders[1]}` hands over what is there"
    )


def test_folders_can_only_be_given_to_a_user_that_is_there(tmp_path: Path) -> None:
    """So the command to type makes the user first."""
    with pytest.raises(UsageError, match=r"`useradd --system .* assetd && chown -R assetd /\S+`"):
        deployment._check_owner([str(tmp_path)], "assetd", creates=True)


def test_a_link_is_not_handed_over(told: deployment._Told, tmp_path: Path) -> None:
    """Whoever owns the project could have root give away any folder of the machine."""
    target = tmp_path / "etc"
    target.mkdir()
    (tmp_path / "public").symlink_to(target)
    with pytest.raises(UsageError, match="cannot be made"):
        deployment._hand_over(told, str(tmp_path / "public"), "daemon")
    assert target.owner() == "root"


def test_a_python_that_the_user_cannot_reach_is_refused(
    told: deployment._Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service would end with 203/EXEC, which tells nobody anything."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(private / "python"))
    with pytest.raises(UsageError, match=r"daemon, who the service runs as, cannot run .*/opt"):
        deployment.check_as("daemon", "/srv/site/assetd.yml")


def test_a_user_that_is_asked_for_is_not_made_up() -> None:
    """A slip of the finger makes no account."""
    with pytest.raises(UsageError, match="there is no user 'nobdoy'"):
        deployment._is_user("nobdoy", may_create=False)
    with pytest.raises(UsageError, match=r"user 4321, who has no name on this machine: .*--run-as"):
        deployment._is_user("#4321", may_create=True)
