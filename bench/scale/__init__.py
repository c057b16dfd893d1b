"""How many pods, shards and connections many sessions need (`python -m bench.scale`)."""
