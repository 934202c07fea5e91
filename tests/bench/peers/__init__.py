"""What a user would pick instead, one module for each; `ALL` has them in the order of the table."""

from tests.bench.contenders import Contender
from tests.bench.peers import (
    dart_sass,
    gulp,
    hugo,
    ninja,
    piecrust,
    tup,
    vite,
    watchman,
    webassets,
)

ALL: tuple[Contender, ...] = (
    dart_sass.PEER,
    ninja.PEER,
    watchman.PEER,
    tup.PEER,
    webassets.PEER,
    gulp.PEER,
    hugo.PEER,
    vite.PEER,
    piecrust.PEER,
)
