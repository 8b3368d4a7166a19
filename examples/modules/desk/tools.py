"""What the desk knows. In real life these would ask a database."""

ORDERS = {"ada@example.com": ["A-1", "A-2"], "alan@example.com": ["B-7"]}
STATUS = {"A-1": "delivered", "A-2": "on its way", "B-7": "returned"}


def orders_of(customer: str) -> list[str]:
    """The numbers of a customer's orders, by e-mail address."""
    return ORDERS.get(customer, [])


def status_of(order: str) -> str:
    """What became of an order, by its number."""
    return STATUS.get(order, "unknown")
