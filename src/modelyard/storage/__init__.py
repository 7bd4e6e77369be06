"""Artifacts: their digests, and the copies kept under them."""
