"""What an answer of Kaggle's that the client raised as an error says: its status, its words, how long to wait.

Everything that is returned here is free of credentials.
"""

import email.utils
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from kit.kaggle.credentials import redact

LONGEST = 300  # characters of Kaggle's words that are shown


def redacted_line(text: str | None) -> str:
    """Kaggle's own words, fit for an error message: no credential, one line, not endless."""
    return " ".join(redact(text or "").split())[:LONGEST]


def format_duration(seconds: float) -> str:
    """Seconds in words: 90 s, 5 min, 24 h."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.0f} h"


def time_until_midnight() -> str:
    """How long it is until midnight UTC, when Kaggle's day begins, in words."""
    now = datetime.now(UTC)
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return format_duration((tomorrow - now).total_seconds())


def http_status(error: Exception) -> int | None:
    """The status of the answer, which one of 200 may carry in its JSON; None where there was no answer."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    code = _body(response).get("code") if response.status_code < 400 else None
    return int(code) if isinstance(code, int) else int(response.status_code)


def error_message(error: Exception) -> str:
    """What Kaggle says about it; nothing where that is only the status in words."""
    response = getattr(error, "response", None)
    if response is None:
        return ""
    body = _body(response)
    inner = body.get("error")  # Google's own services answer {"error": {"message": …}}
    text = redacted_line(str(body.get("message") or (inner.get("message") if isinstance(inner, dict) else inner) or ""))
    return "" if text.replace(" ", "").lower() in ("badrequest", "forbidden", "notfound", "unauthorized") else text


def is_web_page(error: Exception) -> bool:
    """Whether the answer is a web page: Kaggle's own errors are JSON, and those of its storage XML."""
    response = getattr(error, "response", None)
    return response is not None and "html" in response.headers.get("Content-Type", "").lower()


def is_from_storage(error: Exception) -> bool:
    """Whether the answer is of the storage to which Kaggle leads up- and downloads."""
    response = getattr(error, "response", None)
    return response is not None and "xml" in response.headers.get("Content-Type", "").lower()


def retry_after(error: Exception) -> float | None:
    """Seconds that a 429 asks to wait, from a number or an HTTP date (RFC 9110 §10.2.3); None where it names none."""
    value = getattr(error, "response", None).headers.get("Retry-After")  # type: ignore[union-attr]
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        try:
            seconds = (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _body(response: Any) -> dict[str, Any]:
    try:
        value = response.json()
    except (ValueError, OSError, RuntimeError):  # not JSON, or a stream that is already read or closed
        return {}
    return value if isinstance(value, dict) else {}
