"""Webhooks that callers name."""

import os

from dspex.configuration.settings import Settings
from dspex.kit.errors import Invalid, Problem


def check_webhook_secret(settings: Settings) -> None:
    """Raises Invalid (code webhook_secret_missing): a message that nobody can believe helps nobody."""
    name = settings.jobs.webhooks.secret_env
    if not (os.environ.get(name) or os.environ.get(f"{name}_FILE")):
        raise Invalid(
            f"Webhooks are signed, and this service has no secret for that; its operator sets {name}.",
            code="webhook_secret_missing",
            problems=[Problem("/webhook", "webhook_secret_missing", f"the service has no {name}")],
        )
