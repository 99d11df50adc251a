"""``rsttrace fleet``: the entries of many nodes together. One node's tracer knows what it sent."""
