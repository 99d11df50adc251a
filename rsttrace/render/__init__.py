"""Writes entries: text for people, JSON for programs."""
