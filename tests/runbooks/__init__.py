"""The commands of docs/runbooks/, run in a lab; their sample output is real."""
