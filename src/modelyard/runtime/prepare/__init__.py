"""Reading an artifact once: what it is, its digest, its signature, and a copy to serve from."""

from modelyard.runtime.prepare.inspect import run

__all__ = ["run"]
