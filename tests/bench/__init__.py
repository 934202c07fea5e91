"""`make bench`: what assetd costs, as ratios to the bare cost of the same work in the same run."""
