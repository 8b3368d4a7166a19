"""Alerts to webhooks."""

from collections.abc import Sequence

from dspex.kit.facts import Facts
from dspex.kit.records import asdict
from dspex.kit.webhooks import Webhook, Webhooks
from dspex.observability.facts import AlertRaised, AlertResolved


def post_alerts(facts: Facts, webhooks: Webhooks, targets: Sequence[Webhook]) -> None:
    """Every alert that is raised, lasts or is resolved goes to every target."""

    def raised(fact: AlertRaised) -> None:
        event = "alert.reminder" if fact.reminder else "alert.raised"
        for target in targets:
            webhooks.post(target, event, {"alert": asdict(fact.alert)})

    def resolved(fact: AlertResolved) -> None:
        for target in targets:
            webhooks.post(target, "alert.resolved", {"alert": asdict(fact.alert)})

    facts.subscribe(AlertRaised, raised)
    facts.subscribe(AlertResolved, resolved)
