"""The web process: routes, SSE relay, auth, metrics. It validates, calls the core, relays bytes."""
