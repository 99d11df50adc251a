"""Weighs the evidence on a reset into a verdict."""
