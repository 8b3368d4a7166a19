import dspy

from newsroom.signatures.article import Titles


class TitlesPredict(dspy.Module):
    """Returns a plain value, which gets the name of the signature's one output."""

    def __init__(self):
        super().__init__()
        self.propose = dspy.Predict(Titles)

    def forward(self, article: str) -> list[str]:
        return self.propose(article=article).titles
