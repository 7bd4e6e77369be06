"""What keeps an image from being built."""


class CannotBuild(Exception):
    """A sentence that says what is missing and what to do."""
