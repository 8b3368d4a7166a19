"""A program of three steps: two model calls and a look into the books."""

from typing import Literal

import dspy

from desk.tools import orders_of, status_of


class Sort(dspy.Signature):
    """Sort a customer's ticket."""

    ticket: str = dspy.InputField()
    team: Literal["shipping", "billing", "other"] = dspy.OutputField()
    urgent: bool = dspy.OutputField()


class Desk(dspy.Module):
    signature = dspy.Signature("ticket, customer -> team, urgent: bool, orders: list[str], answer")

    def __init__(self) -> None:
        super().__init__()
        self.sort = dspy.Predict(Sort)
        self.draft = dspy.ChainOfThought("ticket, team, orders: list[str] -> answer")

    def forward(self, ticket: str, customer: str) -> dspy.Prediction:
        sorted_ = self.sort(ticket=ticket)
        orders = [f"{order}: {status_of(order)}" for order in orders_of(customer)]
        draft = self.draft(ticket=ticket, team=sorted_.team, orders=orders)
        return dspy.Prediction(team=sorted_.team, urgent=sorted_.urgent, orders=orders, answer=draft.answer)
