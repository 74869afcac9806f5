"""What the commands of the devcluster say when they cannot do what was asked."""


class DevclusterError(Exception):
    """A sentence for people, and the exit code: 2 when the request is wrong, 1 when the state forbids it."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
