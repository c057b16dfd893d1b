"""From a socket to a request that may be served: limits, parsing, keys, bodies."""
