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
from modelyard.storage.identity import Identity

# Keys of objects and numbers of ports are in the texts, too: a number alone says nothing.
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_SAID = re.compile(r"<Message>([^<]{1,200})")
_ERRNO = re.compile(r"\(os error (\d{1,3})\)")
_NAME = re.compile(
    r"Could not parse path|invalid path|illegal character|empty path segment|Filenames containing|File name too long"
)
_WRONG_REGION = re.compile(r"incorrectly configured region")
# What obstore does before it asks the store. It hides the addresses of requests that bear a token.
_EXCHANGE = re.compile(r"performing token request|performing POST REDACTED|/v1/credentials|token file|AssumeRole")
_ENTRA = re.compile(r"\bAADSTS\d{1,9}\b")

_BAD_KEYS = frozenset(
    (
        "AccessDenied",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "ExpiredToken",
        "InvalidToken",
        "AuthenticationFailed",
    )
)
_NO_TOKEN = frozenset((400, 401, 403, 404))
_BAD_REGIONS = frozenset(("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"))
_NO_BUCKETS = frozenset(("NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "InvalidResourceName"))
_CONFLICTS = frozenset(("ConditionalRequestConflict", "OperationAborted"))
_FULL = frozenset((27, 28, 122))  # EFBIG, ENOSPC, EDQUOT
_DENIED = frozenset((1, 13, 30))  # EPERM, EACCES, EROFS
_NO_FOLDER = frozenset((17, 20))  # EEXIST, ENOTDIR
_LONGEST = 300


@contextmanager
def told(place: str, *, changed: bool = False, identity: Identity | None = None) -> Iterator[None]:
    """Errors of the block as StoreRefused or StoreUnavailable that name the place.

    changed: the version of an object that is read is known, so one that is not there any more has changed, too.
    identity: of who asks, in place of keys.
    AlreadyExistsError and FileNotFoundError, where they mean no more than that, are left to the caller.
    """
    place = "".join(each if each.isprintable() else "?" for each in place)
    try:
        yield
    except (ModelyardError, AlreadyExistsError):
        raise
    except FileNotFoundError as error:
        if is_no_bucket(error):
            raise _no_bucket(place) from error
        if changed:
            raise _changed(place) from error
        raise
    except PreconditionError as error:
        raise _changed(place) from error
    except (BaseError, OSError) as error:
        raise _sentence(place, error, identity) from error
    except ValueError as error:
        if _NAME.search(str(error)):
            raise _bad_name(place, str(error)) from error
        raise


def is_no_bucket(error: Exception) -> bool:
    """A missing object is often no error, a missing bucket always is."""
    found = _CODE.search(str(error))
    return found is not None and found[1] in _NO_BUCKETS


def is_conflict(error: AlreadyExistsError) -> bool:
    """Two writes met, and neither needs to have succeeded. Source: S3 API, PutObject with If-None-Match, status 409."""
    found = _CODE.search(str(error))
    return found is not None and found[1] in _CONFLICTS


def _sentence(place: str, error: Exception, identity: Identity | None) -> ModelyardError:
    text = str(error).partition("\n\nDebug source:")[0]
    if place.startswith("file://") or "://" not in place:
        return _local(place, error, text)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    if identity is not None and _EXCHANGE.search(text):
        return _no_identity(place, identity, text, status)
    if code in _BAD_REGIONS or _WRONG_REGION.search(text):
        return _bad_region(place, text)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403) or code in _BAD_KEYS:
        return _denied(place, code, identity)
    if code in _NO_BUCKETS:
        return _no_bucket(place)
    return _failed(place, text, status, code)


def _failed(place: str, text: str, status: int, code: str) -> ModelyardError:
    if _NAME.search(text):
        return _bad_name(place, text)
    if status == 501:
        return StoreRefused(
            Reason.UNSUPPORTED, f"{place}: the store cannot do what is asked of it ({code or status}); use another one"
        )
    if status == 507:
        return _full(place)
    return _unreachable(place, _answer(text, status, code))


def _local(place: str, error: Exception, text: str) -> ModelyardError:
    number = int(found[1]) if (found := _ERRNO.search(text)) else getattr(error, "errno", None) or 0
    if number in _FULL:
        return _full(place)
    if number in _DENIED or isinstance(error, PermissionError):
        return StoreRefused(Reason.ACCESS_DENIED, f"{place}: this user may not do that; change the permissions")
    if number in _NO_FOLDER:
        return StoreRefused(
            Reason.INVALID, f"{place}: there is a file where a folder is expected; remove it, or correct the uri"
        )
    return _bad_name(place, text) if _NAME.search(text) else _unreachable(place, _line(text))


def _bad_region(place: str, text: str) -> StoreRefused:
    said = f" ({found[1]})" if (found := _SAID.search(text)) else ""
    return StoreRefused(
        Reason.ACCESS_DENIED, f"{place}: the bucket is in another region{said}; name it as AWS_REGION in the Secret"
    )


def _denied(place: str, code: str, identity: Identity | None) -> StoreRefused:
    said = f" ({code})" if code else ""
    step = identity.next_step(_scheme(place)) if identity else "name a Secret with the right keys in credentials"
    return StoreRefused(Reason.ACCESS_DENIED, f"{place}: access is denied{said}; {step}")


def _no_identity(place: str, identity: Identity, text: str, status: int) -> ModelyardError:
    """The store has not been asked yet: who gives the identity was."""
    entra = _ENTRA.search(text)
    code = found[1] if (found := _CODE.search(text)) else entra[0] if entra else ""
    cause = _answer(text, status, code)
    message = f"{place}: ServiceAccount {identity.account} is not given its cloud identity: {cause}"
    step = identity.binding(_scheme(place))
    if status in _NO_TOKEN:
        return StoreRefused(Reason.ACCESS_DENIED, f"{message}; {step}")
    return StoreUnavailable(Reason.STORE_UNREACHABLE, f"{message}; it is tried again. If that does not help: {step}")


def _scheme(place: str) -> str:
    return place.partition(":")[0]


def _full(place: str) -> StoreUnavailable:
    return StoreUnavailable(Reason.DISK_FULL, f"{place}: no space is left; free some, it is tried again")


def _no_bucket(place: str) -> StoreRefused:
    return StoreRefused(Reason.BUCKET_NOT_FOUND, f"{place}: the bucket does not exist; make it, or correct the uri")


def _changed(place: str) -> StoreRefused:
    return StoreRefused(
        Reason.INPUT_CHANGED, f"{place} changed or went while it was used; leave inputs alone, and start again"
    )


def _bad_name(place: str, text: str) -> StoreRefused:
    return StoreRefused(Reason.INVALID, f"{place}: a name there cannot be used: {_line(text)}; rename it")


def _unreachable(place: str, cause: str) -> StoreUnavailable:
    return StoreUnavailable(Reason.STORE_UNREACHABLE, f"{place}: the store does not answer as it should: {cause}")


def _answer(text: str, status: int, code: str) -> str:
    """The body of an answer holds numbers of requests and hosts; what people need are its code and its message."""
    if not status:
        return _line(text)
    said = found[1] if (found := _SAID.search(text)) else ""
    more = ": ".join(each for each in (code, said) if each)
    return " ".join((f"status {status} {more}" if more else f"status {status}").split())


def _line(text: str) -> str:
    """The causes without what surrounds them: the last sentence tells most."""
    text = re.sub(r"<[^>]{0,200}>|\w+://\S+", " ", text)
    return " ".join(text.split())[-_LONGEST:]
