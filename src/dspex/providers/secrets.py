"""Secrets from the environment, or from the file that the environment names."""

import os
from collections.abc import Mapping
from pathlib import Path

from dspex.gateway.errors import LMConfigurationError, LMError

MASK = "[key]"
# Shorter beginnings of a key, such as "sk-", tell nothing and would spoil the text around them.
_TELLING = 8


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


def hidden(error: LMError, key: str | None) -> LMError:
    """The same error without the key: servers repeat the one they refuse, also where they are cut short."""
    if not key:
        return error
    before, *others = error.message.split(key[:_TELLING])
    message = before + "".join(MASK + other[_shared(other, key[_TELLING:]) :] for other in others)
    error.message, error.args = message, (message,)
    return error


def _shared(text: str, rest: str) -> int:
    """How many characters they have in common at the beginning."""
    return next(
        (at for at, (one, other) in enumerate(zip(text, rest, strict=False)) if one != other),
        min(len(text), len(rest)),
    )
