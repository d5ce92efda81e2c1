"""Zip files made in memory, for the tests of whatever reads one."""

import io
import zipfile


def make_zip(entries: dict[str, bytes] | list, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of `entries`: bytes by name, or pairs of a name or ZipInfo and its bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            file.writestr(name, data)
    return buffer.getvalue()
