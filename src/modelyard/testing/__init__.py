"""Behavioral suites that every implementation of a Protocol passes, the memory twins included. For tests only."""
