"""What a node says when it is ready: where it is, what it serves, and what a user must know."""

import sys

import structlog

from dspex.application.declaring import NotReady
from dspex.configuration.settings import Settings
from dspex.kit.version import VERSION
from dspex.kit.wording import shortened

# Characters of a reason; the log and `dspex programs show` have all of it.
_REASON = 80
log = structlog.get_logger(__name__)
REAL_MODEL = "models: {default: main, registry: {main: {model: openai/gpt-4o-mini, env: OPENAI_API_KEY}}}"


def announce(settings: Settings, not_ready: NotReady, *, port: int) -> None:
    """A few lines for a person at a terminal, one log line for a machine, which was told what is `not_ready`."""
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    url = f"http://{host}:{port}"
    if not (settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())):
        log.info(
            "serving",
            url=url,
            programs=[one.name for one in settings.programs],
            simulated=settings.simulated,
            asks_for_keys=settings.asks_for_keys,
        )
        if settings.simulated:
            log.warning("answers_are_simulated", set_a_real_model=REAL_MODEL)
        return
    sys.stderr.write("\n".join(_lines(settings, not_ready, url)) + "\n")


def _lines(settings: Settings, not_ready: NotReady, url: str) -> list[str]:
    names = ", ".join(_told(one.name, not_ready) for one in settings.programs)
    lines = [
        f"DSPex {VERSION} answers at {url}",
        f"  programs  {names or 'none declared; POST /v1/predict runs any signature'}",
        f"  records   {settings.database_without_secrets}",
    ]
    if settings.simulated:
        lines += [
            "  answers   SIMULATED. For a real model put this line into dspex.yaml:",
            f"            {REAL_MODEL}",
        ]
    else:
        lines.append(f"  model     {settings.models.default}")
    lines.append(f"  access    {_access(settings)}")
    return lines


def _told(name: str, not_ready: NotReady) -> str:
    if name not in not_ready:
        return name
    return f"{name} (not ready: {shortened(not_ready[name], _REASON)})"


def _access(settings: Settings) -> str:
    if settings.asks_for_keys:
        return "by key; `dspex keys create NAME` makes one"
    if settings.access.mode == "open":
        return "open (access.mode): whoever reaches this address may do everything"
    return "no keys on loopback: whoever is on this machine may do everything"
