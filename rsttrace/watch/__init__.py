"""Those who watch a run from outside: Prometheus, journald, systemd, an OTLP collector."""
