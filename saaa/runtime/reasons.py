"""What others' errors say, in one line."""

from __future__ import annotations

from saaa.errors import SaaaError


def reason(error: Exception) -> str:
    """At most 300 characters of an error.

    Our own are told whole. Of openvino's many lines it is the one that names operations for which there is no
    converter, else the first that tells something.
    """
    if isinstance(error, SaaaError):
        return error.message
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
    naming = [line for line in lines if line.startswith("No conversion rule")]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return next(iter(naming + telling + lines), type(error).__name__)[:300]
