"""Artifacts from where they lie to a folder here, by a process that has the keys and runs nothing of a model."""
