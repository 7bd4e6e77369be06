"""Why something cannot be read or stored, in the words of `base.conditions.Reason`."""

import errno
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError


class StoreRefused(UserError):
    """Somebody must change the object, where it is, or the keys."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StoreUnavailable(RetryLater):
    """The same attempt may succeed later."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def unreadable(path: Path, error: OSError) -> ModelyardError:
    """What reading `path` ended with, told to the user."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return StoreRefused(
            Reason.ARTIFACT_NOT_FOUND, f"there is nothing at {path}; correct the path or save the model there"
        )
    if isinstance(error, PermissionError):
        return StoreRefused(
            Reason.ARTIFACT_UNREADABLE, f"{path} may not be read by this user; change its permissions (chmod u+r)"
        )
    return StoreUnavailable(Reason.ARTIFACT_UNREADABLE, f"{path} cannot be read: {error.strerror}")


def unwritable(folder: Path, error: OSError) -> ModelyardError:
    """What writing below `folder` ended with, told to the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreUnavailable(
            Reason.DISK_FULL, f"no space is left for a copy of the artifact in {folder}; free some, it is tried again"
        )
    return StoreUnavailable(Reason.ARTIFACT_UNREADABLE, f"the copy in {folder} cannot be written: {error.strerror}")
