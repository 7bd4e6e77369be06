"""What obstore raises, in sentences for people. Its own texts hold requests, stacks and XML."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError
from modelyard.storage.errors import StoreRefused, StoreUnavailable

_DENIED = re.compile(r"\b40[13]\b|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId|Forbidden|Unauthorized")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist|BucketNotFound")
_FULL = re.compile(r"No space left|os error 28|os error 122|os error 27|InsufficientStorage|507")
_LONGEST = 300


@contextmanager
def told(place: str, *, changed: bool = False) -> Iterator[None]:
    """Errors of the block as StoreRefused or StoreUnavailable that name the place.

    changed: the version of an object that is read is known, so one that is not there any more has changed, too.
    AlreadyExistsError and FileNotFoundError, where they mean no more than that, are left to the caller.
    """
    try:
        yield
    except (ModelyardError, AlreadyExistsError):
        raise
    except FileNotFoundError as error:
        if _NO_BUCKET.search(str(error)):
            raise _no_bucket(place) from error
        if changed:
            raise _changed(place) from error
        raise
    except PreconditionError as error:
        raise _changed(place) from error
    except (BaseError, OSError) as error:
        raise _sentence(place, error) from error


def _sentence(place: str, error: Exception) -> ModelyardError:
    text = str(error)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError) or _DENIED.search(text):
        return StoreRefused(
            Reason.ACCESS_DENIED,
            f"{place}: access is denied{_code(text)}; name a Secret with the right keys in credentials"
            if "://" in place and not place.startswith("file://")
            else f"{place}: this user may not do that; change the permissions",
        )
    if _NO_BUCKET.search(text):
        return _no_bucket(place)
    if _FULL.search(text):
        return StoreUnavailable(Reason.DISK_FULL, f"{place}: no space is left; free some, it is tried again")
    return StoreUnavailable(Reason.STORE_UNREACHABLE, f"{place}: the store does not answer as it should: {_line(text)}")


def _no_bucket(place: str) -> StoreRefused:
    return StoreRefused(Reason.BUCKET_NOT_FOUND, f"{place}: the bucket does not exist; make it, or correct the uri")


def _changed(place: str) -> StoreRefused:
    return StoreRefused(
        Reason.INPUT_CHANGED, f"{place} changed or went while it was used; leave inputs alone, and start again"
    )


def _code(text: str) -> str:
    found = re.search(r"<Code>(\w{1,64})</Code>", text)
    return f" ({found[1]})" if found else ""


def _line(text: str) -> str:
    """The causes without what surrounds them: the last sentence tells most."""
    head = text.partition("\n\nDebug source:")[0]
    head = re.sub(r"<[^>]{0,200}>|https?://\S+", " ", head)
    return " ".join(head.split())[-_LONGEST:]
