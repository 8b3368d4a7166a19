from typing import Literal

import dspy


class Titles(dspy.Signature):
    """Propose titles for an article."""

    article: str = dspy.InputField(desc="")
    titles: list[str] = dspy.OutputField(desc="At most five.")


class Shorten(dspy.Signature):
    """Shorten an article."""

    article: str = dspy.InputField()
    length: Literal["line", "paragraph"] = dspy.InputField()
    audience: str | None = dspy.InputField()
    short: str = dspy.OutputField()
