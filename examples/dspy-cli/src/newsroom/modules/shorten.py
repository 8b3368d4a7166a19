from typing import Literal, Optional

import dspy

from newsroom.signatures.article import Shorten


class ShortenPredict(dspy.Module):
    def __init__(self):
        super().__init__()
        self.shorten = dspy.Predict(Shorten)

    def forward(
        self,
        article: str,
        length: Literal["line", "paragraph"],
        # What dspy-cli lets callers leave out.
        audience: Optional[str],  # noqa: UP045
    ) -> dspy.Prediction:
        return self.shorten(article=article, length=length, audience=audience)


class ShortenCoT(ShortenPredict):
    """A module by its base."""

    def __init__(self):
        super().__init__()
        self.shorten = dspy.ChainOfThought(Shorten)
