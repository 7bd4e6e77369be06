"""Bytes <-> values: what crosses a process boundary. No sockets, no files."""
