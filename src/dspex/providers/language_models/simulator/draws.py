"""Random-looking numbers that depend on nothing but their key."""

import hashlib


def digest(*parts: bytes | str | int | float | None) -> bytes:
    """32 bytes that stand for the parts in their order; the parts can't run into one another."""
    state = hashlib.sha256()
    for part in parts:
        encoded = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass")
        state.update(b"%d:" % len(encoded))
        state.update(encoded)
    return state.digest()


class Draws:
    """A stream of draws from a 32-byte key: the same key gives the same stream on every machine."""

    __slots__ = ("_at", "_block", "_key", "_round")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._block = key
        self._at = 0
        self._round = 0

    def _word(self) -> int:
        if self._at == 32:
            self._round += 1
            self._block = hashlib.sha256(self._key + self._round.to_bytes(8, "big")).digest()
            self._at = 0
        word = int.from_bytes(self._block[self._at : self._at + 8], "big")
        self._at += 8
        return word

    def unit(self) -> float:
        """A number in [0, 1)."""
        return (self._word() >> 11) / (1 << 53)

    def below(self, limit: int) -> int:
        """A whole number in [0, limit); `limit` is at least 1."""
        return self._word() % limit
