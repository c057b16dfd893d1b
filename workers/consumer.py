"""Celery's consumer, with task events sent in batches.

Celery publishes the events of each message at once: a fifth of a worker's time in a burst. Flower
may as well hear of them a little later.
"""

import time

from celery.worker.consumer import Consumer

# Seconds that task events may wait.
EVENT_DELAY = 0.1


class BatchingConsumer(Consumer):
    """Flushes task events at most every EVENT_DELAY, or when Celery's buffer is full."""

    # Not a flag: a reconnection drops the timer's entries, and then this has just passed.
    _planned = 0.0

    def on_send_event_buffered(self) -> None:
        """Plan a flush; called by the event dispatcher with each event it buffers."""
        now = time.monotonic()
        if self.hub and now >= self._planned:
            self._planned = now + EVENT_DELAY
            self.hub.call_later(EVENT_DELAY, self._flush_events)
