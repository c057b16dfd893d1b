"""The protocol, explored exhaustively: every order of steps, with faults between any two.

The scripts are not modelled: each step of the explorer runs the real one, by the store, on a real
server. A state of Redis lives in a partition of its own, so a step is: copy the partition, run the
script on the copy, read the copy. Times are left out of what is read, so that states which differ in
nothing else are one, and each call is made once for each state.

contents   what a partition holds, read as a whole
promises   what must hold in every one
data       states of Redis, and the calls made on them
system     what is outside Redis: workers, clients, the list of wake-ups
calls      the calls of the store that they make
steps      what may happen next in a system, faults among it
explore    all that can be reached, and whether from everywhere the end is
"""
