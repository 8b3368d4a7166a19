"""How amounts stand in sentences and tables. Documents have plain numbers."""

LEAST_USD = 0.000001


def usd_text(amount: float) -> str:
    """US dollars as $12.50 or $0.000065: two to six decimals, never an exponent; <$0.000001 for less."""
    if 0 < amount < LEAST_USD:
        return f"<${LEAST_USD:.6f}"
    whole, _, decimals = f"{abs(amount):.6f}".rstrip("0").partition(".")
    return f"{'-' if amount < 0 else ''}${whole}.{decimals.ljust(2, '0')}"


def counted(number: int, noun: str) -> str:
    """Such as 1 row, and 2 rows."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shortened(text: str, most: int) -> str:
    """The first line, of `most` characters at most."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= most else f"{line[: most - 1]}…"
