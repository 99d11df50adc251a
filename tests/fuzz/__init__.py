"""Fuzzing what reads bytes that others decide: ``make fuzz``."""
