"""Support tickets to queues. House rule: the request decides, not the trouble that is told first."""

import re

from dspex.providers.language_models.simulator.draws import Draws
from dspex.providers.language_models.simulator.tasks import Advice, Solution, Task, pick

_REQUESTS = {
    "billing": (
        "please refund",
        "please correct the invoice for",
        "please charge another card for",
        "please send a receipt for",
    ),
    "technical": (
        "please fix the crash in",
        "please look at the error in",
        "please make the export work in",
        "please repair the login page of",
    ),
    "account": (
        "please change the owner of",
        "please close my profile with",
        "please reset my password for",
        "please add a colleague to",
    ),
    "shipping": (
        "please send again",
        "please tell me where my parcel is for",
        "please change the delivery address of",
        "please deliver earlier",
    ),
}
_TROUBLES = {
    "billing": ("I was charged twice", "The invoice shows a wrong sum", "My card was declined"),
    "technical": ("The app crashed again", "An error came up on every page", "The export hangs"),
    "account": ("My password no longer works", "I moved to another team", "The profile shows my old name"),
    "shipping": ("The parcel is late", "The box arrived open", "The courier rang next door"),
}
_QUEUES = tuple(_REQUESTS)
_ALL = frozenset(_QUEUES)


def _write(draws: Draws) -> str:
    trouble = pick(draws, _TROUBLES[pick(draws, _QUEUES)])
    request = pick(draws, _REQUESTS[pick(draws, _QUEUES)])
    day = pick(draws, ("Monday", "Tuesday", "Friday", "Sunday"))
    return f"{trouble} on {day}, {request} order {1000 + draws.below(9000)}."


def _solve(text: str) -> Solution | None:
    for queue, requests in _REQUESTS.items():
        if any(f"{request} order" in text for request in requests):
            told = next((name for name, troubles in _TROUBLES.items() if text.startswith(troubles)), queue)
            others = tuple(name for name in _QUEUES if name != queue)
            return Solution(queue, queue, others if told == queue else (told,))
    return None


TICKETS = Task(
    name="tickets",
    signature="message -> queue: Literal['billing', 'technical', 'account', 'shipping']",
    input="message",
    output="queue",
    advice=(
        Advice(
            "Choose the queue by what the customer asks for, not by the trouble told first.",
            re.compile(r"what the customer (asks|requests|wants)", re.IGNORECASE),
            _ALL,
            0.3,
        ),
        Advice(
            "Refunds, receipts and invoices belong to billing; parcels and delivery belong to shipping.",
            re.compile(r"belongs? to billing|belongs? to shipping", re.IGNORECASE),
            frozenset({"billing", "shipping"}),
            0.2,
        ),
        Advice(
            "The first words of the message decide.",
            re.compile(r"first words", re.IGNORECASE),
            _ALL,
            -0.2,
        ),
    ),
    write=_write,
    solve=_solve,
)
