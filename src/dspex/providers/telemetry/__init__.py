"""Ways out for what is observed: OTLP collectors and Sentry."""
