"""Internals of kombu, Celery, redis-py and Flower that turnpool builds on, none of them promised to stay.

Their versions are capped in pyproject.toml. Who lifts a cap learns here what to look at again: read the
change, see that our code still fits, and note the new digest.
"""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from celery.worker.consumer import Consumer
from celery.worker.consumer.events import Events
from flower.views import BaseHandler
from kombu.transport import redis, virtual

# What transport.py, consumer.py and flower.py of the workers replace, call, or are called by.
DIGESTS: dict[Callable[..., Any], str] = {
    redis.Channel.__init__: "f189bdebe243",
    redis.Channel._brpop_start: "06723d707ddf",
    redis.Channel._brpop_read: "c42518699709",
    redis.Channel._connparams: "e9a4295085a8",
    redis.Channel._receive: "b215b6226f2f",
    redis.Channel._receive_one: "d59b8751d897",
    redis.SentinelChannel._sentinel_managed_pool: "bde54a2d6e93",
    virtual.Transport._deliver: "799e242f3ec5",
    virtual.QoS.restore_visible: "0f0125cd5619",
    Consumer.start: "53bd1abe3456",
    Consumer.connect: "7ca359b806be",
    Consumer.ensure_connected: "3f79cf3bb6d6",
    Consumer.on_close: "e96d425dce0a",
    Consumer.on_connection_error_after_connected: "4f84dbfff329",
    Events.start: "5dafa048a5f8",
    BaseHandler.get_broker: "4c4268188d47",
}


@pytest.mark.parametrize("used", DIGESTS, ids=lambda used: used.__qualname__)
def test_what_is_built_on_has_not_changed(used: Callable[..., Any]) -> None:
    """A change is not wrong, but has to be read."""
    digest = hashlib.sha256(inspect.getsource(used).encode()).hexdigest()[:12]
    assert digest == DIGESTS[used], f"{used.__qualname__} has changed: {digest}"
