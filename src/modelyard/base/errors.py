"""The two families of error that cross an edge: tell the user, or try again later."""


class ModelyardError(Exception):
    """A failure with a sentence for people: what failed, what was expected, the next step."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UserError(ModelyardError):
    """Trying again changes nothing: somebody must change a file, a field or a command."""


class RetryLater(ModelyardError):
    """The same attempt may succeed later: a dead peer, a full queue, a lost race.

    retry_after_seconds: what the peer asked for, or None to use the caller's own back-off.
    """

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class InvalidFields(UserError):
    """Every violated rule of one object at once, each with its path and the fix."""

    def __init__(self, subject: str, errors: tuple["FieldError", ...]) -> None:
        self.subject = subject
        self.errors = errors
        super().__init__(f"{subject} is invalid:\n" + "\n".join(f"  {error}" for error in errors))


class FieldError:
    """One violated rule: where (`spec.model.uri`) and what was expected there."""

    __slots__ = ("message", "path")

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"

    def __repr__(self) -> str:
        return f"FieldError({self.path!r}, {self.message!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldError) and (self.path, self.message) == (other.path, other.message)

    def __hash__(self) -> int:
        return hash((self.path, self.message))
