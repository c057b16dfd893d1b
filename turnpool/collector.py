"""The garbage collector, told what a server knows."""

import gc

# Allocations before a collection; the usual 700 run one for every few turns. Of a burst's time collections
# took a tenth at 20,000, though turns leave next to nothing for them.
THRESHOLD = 50_000


def spare_the_collector() -> None:
    """Leave out of every collection what is loaded at the start, and collect more seldom.

    To be called once all is imported. A full collection then takes as long as there are turns, not
    as there is code.
    """
    gc.collect()
    gc.freeze()
    _, second, third = gc.get_threshold()
    gc.set_threshold(THRESHOLD, second, third)
