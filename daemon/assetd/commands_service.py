"""Commands that hand the daemon to the service manager: service install, service uninstall."""

import argparse

from assetd.command import Commands


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    added = commands.add(
        "service",
        _service,
        "install assetd as a service of systemd for this project",
        json=True,
        examples=("assetd service install --user", "sudo assetd service install --system"),
    )
    added.add_argument(
        "do",
        metavar="{install,uninstall}",
        choices=("install", "uninstall"),
        help="set it up and start it, or stop it and take it away",
    )
    scope = added.add_mutually_exclusive_group()
    for each, text in (
        ("user", "a service of yours; the default, but for root"),
        ("system", "a service of the machine; takes root"),
    ):
        scope.add_argument(f"--{each}", dest="scope", action="store_const", const=each, help=text)
    added.add_argument(
        "--run-as", metavar="USER", help="with --system; else the owner of the project"
    )


def _service(arguments: argparse.Namespace) -> int:
    from assetd import deployment

    return deployment.run(arguments)
