"""What the commands do: one module for each, and what they share."""
