"""Who and where: neighbours, namespaces, processes, vendors."""
