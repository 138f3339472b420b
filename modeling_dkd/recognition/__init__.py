"""Clips that nobody has labelled: recognised, found, followed, reported."""
