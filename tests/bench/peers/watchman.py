"""watchman-make with ninja and sassc."""

import subprocess
from pathlib import Path

from tests.bench.contenders import Contender, needs, start
from tests.bench.peers import ninja


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change, settled after the least time that it takes."""
    ninja.build(root)
    (root / ".watchmanconfig").write_text('{"settle": 1}\n')
    return start(
        root,
        *("watchman-make", "--settle", "0.001", "--make", "ninja -j2 --quiet"),
        *("-p", "assets/**", "-t", ""),
    )


def stop(root: Path) -> None:
    """Have its server forget the folder; end the server, unless it watches others too."""
    subprocess.run(["watchman", "watch-del", root], capture_output=True, check=False)
    listed = subprocess.run(["watchman", "watch-list"], capture_output=True, check=False).stdout
    if b'"roots": []' in listed:
        subprocess.run(["watchman", "shutdown-server"], capture_output=True, check=False)


PEER = Contender(
    "watchman-make with ninja",
    needs(*ninja.NEEDED, ("watchman-make", "apt-get install watchman python3-pywatchman")),
    frozenset({"T2", "T3"}),
    ninja.manifest,
    watch,
    stop=stop,
    says="waiting for changes",
)
