"""Where a uri points: a path of this machine, or a bucket and a prefix of an object store."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from modelyard.base.conditions import Reason
from modelyard.storage.errors import StoreRefused

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
OBJECT_STORES = ("s3", "gs", "az")


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """scheme: file, https (or http, on loopback), s3, gs or az. path: absolute for file, else the key or prefix
    without slashes around it. bucket: of an object store, host of https."""

    scheme: str
    bucket: str = ""
    path: str = ""

    @property
    def uri(self) -> str:
        """Spelled in one way: two uris of the same place are equal."""
        if self.scheme == "file":
            return f"file://{self.path}"
        found = f"{self.scheme}://{self.bucket}/{self.path}"
        return found.rstrip("/") if self.scheme in OBJECT_STORES else found  # of the web, /a and /a/ are two pages


def parse(uri: str, root: str = "") -> Location:
    """A path relative to `root`, an absolute path, file://, s3://, gs://, az:// or https://.

    Raises StoreRefused. Whether something is there is not looked at.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None or (scheme[1].lower() != "file" and not uri[scheme.end() :].startswith("//")):
        return _file(uri, uri, root)
    name = scheme[1].lower()
    if name == "file":
        parts = _split(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise StoreRefused(Reason.UNSUPPORTED, f"{uri} names no file of this machine; write file:///absolute/path")
        return _file(uri, unquote(parts.path), root)
    if name in OBJECT_STORES:
        return _object(uri, name)
    if name in ("http", "https"):
        return _web(uri, name)
    raise StoreRefused(
        Reason.UNSUPPORTED,
        f"{scheme[1]}:// cannot be read; expected a path, file://, {'://, '.join(OBJECT_STORES)}:// or https://",
    )


def _file(uri: str, path: str, root: str) -> Location:
    if "\0" in path or not path:
        raise StoreRefused(Reason.ARTIFACT_NOT_FOUND, f"{uri!r} is not a path")
    if not path.startswith("/") and not root:
        raise StoreRefused(
            Reason.ARTIFACT_NOT_FOUND, f"{uri} is relative, and there is no project root here; use an absolute path"
        )
    return Location(scheme="file", path=os.path.normpath(Path(root) / path))


def _object(uri: str, scheme: str) -> Location:
    bucket, _, path = uri[len(scheme) + 3 :].partition("/")
    bad = "@" in bucket or not _BUCKET.fullmatch(bucket)
    parts = path.rstrip("/").split("/") if path.rstrip("/") else []
    if bad or any(part in ("", ".", "..") for part in parts) or re.search(r"[?#\\\x00-\x1f]", path):
        raise StoreRefused(
            Reason.INVALID,
            f"{_without_user(uri)!r} is no place in an object store; expected {scheme}://BUCKET/PREFIX without '..', "
            "'//', '?' and '#'; keys belong into a Secret",
        )
    return Location(scheme=scheme, bucket=bucket, path="/".join(parts))


def _web(uri: str, scheme: str) -> Location:
    parts = _split(uri)
    shown = _without_user(uri).partition("?")[0]  # queries of signed addresses are as good as keys
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if scheme == "http" and not local:
        raise StoreRefused(Reason.UNSUPPORTED, f"{shown} is not encrypted; use https://")
    if not parts.hostname or "@" in parts.netloc:
        raise StoreRefused(
            Reason.INVALID,
            f"{shown!r} is no address; expected https://HOST/PATH; a token belongs into a Secret",
        )
    query = f"?{parts.query}" if parts.query else ""
    return Location(scheme=scheme, bucket=parts.netloc, path=parts.path.removeprefix("/") + query)


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.hostname, parts.port
    except ValueError as error:
        raise StoreRefused(Reason.INVALID, f"{_without_user(uri)!r} is no address: {error}") from error
    return parts


def _without_user(uri: str) -> str:
    """What people write before an @ may be secret."""
    return re.sub(r"//[^/@]*@", "//...@", uri)
