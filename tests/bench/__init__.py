"""Benchmarks: what tracing costs, measured side by side."""
