"""Composition roots: where the parts become a program."""
