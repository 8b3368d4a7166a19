"""Whether and where telemetry goes, by the settings and the usual OTEL_ variables. Loads nothing."""

from collections.abc import Mapping

import structlog
from msgspec import Struct

from dspex.configuration.observing import TelemetrySettings

log = structlog.get_logger(__name__)
_BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Destination(Struct, frozen=True):
    """`endpoint` is None where the exporter reads the variables itself."""

    endpoint: str | None


def destination(signal: str, settings: TelemetrySettings, environ: Mapping[str, str]) -> Destination | None:
    """Where a signal ("traces" or "metrics") goes; None: nowhere."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    upper = signal.upper()
    if environ.get(f"OTEL_{upper}_EXPORTER", "otlp").strip().lower() not in ("", "otlp"):
        return None
    if settings.endpoint is not None:
        return Destination(f"{settings.endpoint.rstrip('/')}/v1/{signal}")
    of_signal = f"OTEL_EXPORTER_OTLP_{upper}"
    if not (environ.get(f"{of_signal}_ENDPOINT") or environ.get(_BASE)):
        return None
    protocol = environ.get(f"{of_signal}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        log.warning("otlp_protocol_unknown", protocol=protocol[:100], used="http/protobuf")
    return Destination(None)
