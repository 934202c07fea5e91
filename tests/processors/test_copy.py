"""`copy` takes what nobody else does."""

from typing import TYPE_CHECKING

import pytest

from assetd.processor import LAST, Names
from assetd_processors.copy import copy

if TYPE_CHECKING:
    from tests.processors.conftest import Bench


@pytest.mark.parametrize("content", [b"", b"\xff\x00\r\n", b"x" * 3_000_000])
def test_a_copy_has_the_bytes_of_its_source(bench: "Bench", content: bytes) -> None:
    """Nothing is decoded, nothing is cut."""
    bench.write({"assets/images/logo.png": content})
    assert bench.make(copy, "images/logo.png") == {"images/logo.png": content}


def test_it_takes_every_name_last_and_ends_the_branch() -> None:
    """Whatever matches besides it goes first, and nothing comes after it."""
    assert all(copy.matches(path, {}) for path in ("a", "b/c.css", "d.e.f", "\udcff"))
    assert copy.outputs("b/c.css", {}) == Names(("b/c.css",))
    assert (copy.priority, copy.ends, copy.cheap) == (LAST, True, True)
