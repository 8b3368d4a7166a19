"""Answers from articles that lie near the question."""

import dspy

from desk.articles import ARTICLES


class Ask(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.search = dspy.Embeddings(corpus=ARTICLES, embedder=dspy.Embedder("vectors"), k=2)
        self.answer = dspy.ChainOfThought("articles: list[str], question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        articles = self.search(question).passages
        return dspy.Prediction(
            articles=articles, answer=self.answer(articles=articles, question=question).answer
        )
