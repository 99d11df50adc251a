"""A lab of network namespaces with a real forger in it."""
