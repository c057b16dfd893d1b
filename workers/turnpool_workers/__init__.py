"""The worker process: Celery on an asyncio pool, the life of a turn, leases, agents."""
