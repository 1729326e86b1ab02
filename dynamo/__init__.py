"""A leaderless, always-writable object store, run by `twistd`, in the line of Dynamo (SOSP 2007).

Read this first; it says what happens in which order, and where.

A **PUT** reaches any node. `api` turns HTTP into a call of the coordinator. The key's *partition*
is a hash of (bucket incarnation, key); the *ring* ranks the nodes for it; the first N healthy ones
are its *preference list*, in which a *stand-in* takes the place of an absent *owner*. A node on
that list coordinates: it gives the write its *dot* (actor, counter), stores it, and only then
sends the record to the others. With W acknowledgements from disk the client gets its answer. Who
did not take it is told later: a stand-in or the coordinator keeps a *hint*.

A **GET** reaches any node. It asks R of the preference list, merges what they hold, and answers
with the versions that no other one supersedes; more than one are *siblings*, and the *context*
that goes with them says what a write may replace.

The caller's duties in each layer, bottom up:

- `core`: values and state machines. Facts in, decisions out; no clock, no dice, no I/O.
- `wire`: the same values as bytes; every structure begins with a format version.
- `storage`: one ordered store, written by group commits on one thread: an acknowledgement comes
  after the sync, and one sync serves all who wait. Chunks are files named by their content.
- `replica`: a node's copies behind one port, here or across peer HTTP, where operations share
  requests.
- `cluster`: who the members are and which of them answer, by gossip (SWIM with Lifeguard; the
  protocol itself is a machine in `core`). Liveness picks who is asked; it never moves ownership.
- `coordinator`: preference list, replicas, tally, answer.
- `background`: hints going home, deleted buckets' space; bounded steps under one supervisor.
- `api`: faces. Each only translates between HTTP and the coordinator.
- `node`: the composition root. The reactor, dice and wall clock come in there and nowhere else.

docs/ARCHITECTURE.md follows one PUT and one GET through the files; docs/PROTOCOL.md has what
travels between nodes.
"""
