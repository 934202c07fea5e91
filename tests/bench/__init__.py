"""`make bench`: what assetd costs, against the bare cost of the same work and against its peers.

Absolute times say more about the machine than about us, so everything that is compared is
measured in the same run, in turns.

    trees       what is measured: made from a seed, or of packages named by a lock file
    saves       which file is saved, and what must be in which output then
    eye         sees an output change, by inotify
    contenders  assetd and its peers (in `peers/`): how each is set up, started and ended
    floors      the same work, bare
    turns       lets everybody save the same files, in turns
    wholes      cold builds, builds with nothing to do, starts, checkouts, memory, idleness
    figures     a row with its target, and whether it holds
    tables, plots  text, Markdown, JSON and SVG
"""
