"""What every expected failure is.

A `KitError` says what is wrong and where, and what to do about it. The command line prints it as two lines,
`error: …` and `fix: …`, and exits with 2; a notebook shows the same two lines.
"""


class KitError(Exception):
    """An expected failure: `message` says what is wrong and where, `fix` what the user can do."""

    exit_code = 2

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"error: {self.message}\nfix: {self.fix}"

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return str(self).splitlines()
