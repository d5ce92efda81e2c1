"""The exception for every expected failure: what is wrong and where, and what to do about it.

The command line prints it as two lines, `error: …` and `fix: …`, and exits with 2; a notebook shows
the same two lines.
"""

import re

MAX_LENGTH = 1_000  # characters of a line: a quoted value may be as long as a file


class KitError(Exception):
    """An expected failure: `message` says what is wrong and where, `fix` what the user can do."""

    exit_code = 2

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.message = _one_line(message)
        self.fix = _one_line(fix)

    def __str__(self) -> str:
        return f"error: {self.message}\nfix: {self.fix}"

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return str(self).splitlines()


def _one_line(text: str) -> str:
    """`text` on one line, shortened, without control characters: it may quote a file or a user."""
    text = " ".join(text.split())
    if len(text) > MAX_LENGTH:
        text = f"{text[:MAX_LENGTH // 2]} … {text[-MAX_LENGTH // 2:]}"
    return re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", text)
