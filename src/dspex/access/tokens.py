"""The text of a key: `dx_<id>_<secret>`, and what is stored of it.

The id (60 random bits) is public and finds the row. The secret has 256 random bits, so one SHA-256 is all it
takes to store it safely: slow hashes such as Argon2 make guessing expensive where people choose passwords;
nobody guesses 256 bits, and a slow hash on every request would be a gift to whoever floods the door.
"""

import base64
import hashlib
import re
import secrets

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_FORM = re.compile(rb"dx_([a-z2-7]{12})_[a-z2-7]{52}")
MARK = b"dx_"


def new_key_id() -> str:
    """Twelve letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))


def new_key(key_id: str) -> str:
    """A key of this id with a new secret."""
    secret = base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
    return f"dx_{key_id}_{secret}"


def digest_of(key: bytes) -> str:
    """SHA-256 of the whole key, in hex."""
    return hashlib.sha256(key).hexdigest()


def key_id_in(key: bytes) -> str | None:
    """The id that a key claims; None for what is no key at all."""
    found = _FORM.fullmatch(key)
    return None if found is None else found[1].decode()
