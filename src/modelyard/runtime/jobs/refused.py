"""Ends of a job that trying again does not change."""

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError


class JobRefused(UserError):
    """reason: what becomes of the job's condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
