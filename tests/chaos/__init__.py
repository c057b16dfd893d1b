"""Chaos: a pool of real processes under load and faults, its promises checked by its clients.

`python -m tests.chaos --seed N --seconds S` runs it by hand (`make chaos`), `test_chaos.py` for a minute in
`make test`. The seed fixes what is injected when, and the shape of the load.

faults     what can be injected, and the schedule that a seed gives
valkey     the server: killed, frozen, started again on the same port and data
link       the way to it, which can be cut, slowed and refused
pool       places that always have a process, as the replicas of a Deployment
chaos      carries the schedule out
plans      the load that a seed gives
client     posts turns and reads their streams, whatever breaks
reading    checks each frame that comes
book       what was injected, what was seen, what must not be
audit      after the load: every turn and session by REST
times      takeovers, waits, and restarts that nothing explains
inside     after the load: what is left in Redis
report     the table
run        all of them, one after the other
"""
