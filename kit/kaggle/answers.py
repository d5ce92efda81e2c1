"""Read the error answers that the official client raises: status, message, how long to wait.

No text that is returned here contains a credential.
"""

import email.utils
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from kit.core.durations import rounded_duration
from kit.kaggle.credentials import redact

LONGEST = 300  # characters of Kaggle's message that are shown


def redacted_line(text: str | None) -> str:
    """`text` from Kaggle for an error message: on one line, shortened, without credentials."""
    return " ".join(redact(text or "").split())[:LONGEST]


def time_until_midnight() -> str:
    """The time until midnight UTC, when Kaggle's daily limits start anew, as text."""
    now = datetime.now(UTC)
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return rounded_duration((tomorrow - now).total_seconds())


def http_status(error: Exception) -> int | None:
    """The HTTP status, or the `code` in the JSON of a 200; None if there was no answer."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    code = _body(response).get("code") if response.status_code < 400 else None
    return int(code) if isinstance(code, int) else int(response.status_code)


def error_message(error: Exception) -> str:
    """Kaggle's error message; "" if it only repeats the status."""
    response = getattr(error, "response", None)
    if response is None:
        return ""
    body = _body(response)
    inner = body.get("error")  # Google's own services answer {"error": {"message": …}}
    text = redacted_line(str(body.get("message")
                             or (inner.get("message") if isinstance(inner, dict) else inner) or ""))
    bare = ("badrequest", "forbidden", "notfound", "unauthorized")
    return "" if text.replace(" ", "").lower() in bare else text


def is_web_page(error: Exception) -> bool:
    """Whether the answer is a web page. Kaggle's own errors are JSON, those of its storage XML."""
    response = getattr(error, "response", None)
    return response is not None and "html" in response.headers.get("Content-Type", "").lower()


def is_from_storage(error: Exception) -> bool:
    """Whether the answer is from the storage to which Kaggle redirects uploads and downloads."""
    response = getattr(error, "response", None)
    return response is not None and "xml" in response.headers.get("Content-Type", "").lower()


def retry_after(error: Exception) -> float | None:
    """Seconds to wait by Retry-After, a number or an HTTP date (RFC 9110 §10.2.3); None without
    that header.
    """
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
    except (ValueError, OSError, RuntimeError):
        # Not JSON, or a stream that is already read or closed
        return {}
    return value if isinstance(value, dict) else {}
