"""Resets of every kind, for long, held against tcpdump and the kernel's counters: ``make soak``."""
