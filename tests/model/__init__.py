"""The protocol, explored exhaustively: every order of steps of clients, workers and the clock, with faults between.

The scripts are not modelled: each step of the explorer runs the real one, by the store, on a real server. A state
of Redis lives in a partition of its own, so a step is: copy the partition, run the script on the copy, read the copy.
Times are left out of what is read, so that states which differ in nothing else are one, and each call is run once
for each state.

data       states of Redis: copied, stepped, read
promises   what must hold in every one of them
system     what is outside Redis: workers, the API, the list of wake-ups; their steps and faults
explore    all reachable states, and whether from each the end is reached
"""
