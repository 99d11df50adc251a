"""The file source: captures in, resets out, with the same baseline as live."""
