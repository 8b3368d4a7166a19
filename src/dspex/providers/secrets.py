"""Secrets from the environment, or from the file that the environment names."""

import os
from collections.abc import Mapping
from pathlib import Path

from dspex.gateway.errors import LMConfigurationError


def secret(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The value of variable `name`, or what is in the file that `name`_FILE names; None when neither is set.

    Surrounding white space is dropped. Raises LMConfigurationError, which names the variable and never
    shows a value, for an unreadable file or a value that no HTTP header can carry.
    """
    variable, value = name, environ.get(name, "").strip()
    if not value:
        variable = name + "_FILE"
        path = environ.get(variable, "").strip()
        if not path:
            return None
        value = _content(variable, path)
    if value and not (value.isascii() and value.isprintable()):
        raise LMConfigurationError(
            f"{variable} holds characters that no API key has (a line break, or not ASCII); set it again.",
            code="lm_key_malformed",
        )
    return value or None


def _content(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise LMConfigurationError(
            f"The file that {variable} names can't be read: {reason}.", code="lm_key_unreadable"
        ) from None
