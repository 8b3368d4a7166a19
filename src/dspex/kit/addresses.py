"""Addresses as they may be shown."""

MASK = "***"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def without_secrets(address: str) -> str:
    """The address with MASK for its password and its query; a user alone is masked in http(s), as it is a key.

    Works on malformed addresses too, for which it rather shows too little: passwords are often written
    without the percent signs that they need.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return MASK
    start, mark, query = rest.partition("?")
    if "@" in query and not rest.startswith("/"):
        # Whether this is a password with a question mark or a query with an at sign can't be told.
        return f"{scheme}://{MASK}"
    shown = start.partition("#")[0] if start.startswith("/") else _without_account(scheme, start)
    return f"{scheme}://{shown}{mark}{MASK if query else ''}"


def without_path(address: str) -> str:
    """As `without_secrets`, with MASK for the path too: who knows the path of a webhook can often write to it."""
    scheme, _, rest = without_secrets(address).partition("://")
    place = rest.partition("/")[0].partition("?")[0]
    return f"{scheme}://{place}{'' if rest == place else f'/{MASK}'}"


def _without_account(scheme: str, text: str) -> str:
    account, at, place = text.rpartition("@")
    place = place.partition("#")[0]
    if not at:
        return place
    user, colon, _ = account.partition(":")
    if any(one in user for one in "@/#"):
        return f"{MASK}@{place}"
    if scheme.lower() in ("http", "https") and not colon:
        return f"{MASK}@{place}"
    return f"{user}{':' + MASK if colon else ''}@{place}"
