"""Proof of freshness, as often as chance needs to break it."""

import os
from pathlib import Path

from assetd.testing import Site

SYNCS = int(os.environ.get("ASSETD_TEST_SYNCS", "1000"))


def test_sync_called_right_after_a_write_returns_with_the_output_there(tmp_path: Path) -> None:
    """1,000 times of 1,000: "idle" without that proof is not an answer."""
    root = tmp_path / "site"
    root.mkdir()
    site = Site(root)
    site.write("assets/_v.scss", "$v: 0;")
    site.write("assets/a.scss", '@import "v"; a { order: $v }')
    late = []
    with site.daemon() as daemon:
        for number in range(1, SYNCS + 1):
            if number % 2:
                site.write("assets/_v.scss", f"$v: {number};")
            else:
                site.replace("assets/_v.scss", f"$v: {number};")
            assert daemon.sync() == []
            if f"order: {number};" not in (site.output("a.css") or ""):
                late.append(number)
    assert late == []
