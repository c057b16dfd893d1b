"""The garbage collector, told what a server knows."""

import gc

# Allocations before a collection; the usual 700 run one for every few turns. A thousand turns that begin at
# once hold some 100,000 objects, and leave next to nothing for a collection: those of 50,000 took a twentieth
# of the time, and an eighth of that to the first token.
THRESHOLD = 200_000


def tune_garbage_collector() -> None:
    """Leave out of every collection what is loaded at the start, and collect more seldom.

    To be called once all is imported. A full collection then takes as long as there are turns, not
    as there is code.
    """
    gc.collect()
    gc.freeze()
    _, second, third = gc.get_threshold()
    gc.set_threshold(THRESHOLD, second, third)
