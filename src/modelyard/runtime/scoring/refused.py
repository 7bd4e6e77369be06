"""Ends of a job, or of a stream's partition, that trying again does not change."""

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError


class Refused(UserError):
    """reason: what becomes of the object's condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
