"""The command line: what people use to start, talk to and look at a pool."""
