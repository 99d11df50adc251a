"""Giving rights away once everything is open, and the helper that keeps what is still needed."""
