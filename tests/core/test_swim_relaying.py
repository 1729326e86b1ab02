"""The helper's side of an indirect probe."""

from __future__ import annotations

from dynamo.core.members import Member
from dynamo.core.messages import Ack, Nack, Ping, PingRequest
from tests.support.swim_machine import Bed, origin, record, sent


def bed_with(*members: Member) -> Bed:
    """A machine that knows these, with no rumours left."""
    bed = Bed().know(*members)
    bed.swim._post.rumours.clear()
    return bed


def test_helper_passes_the_answer_on() -> None:
    """Under the requester's number, to where the request came from."""
    bed = bed_with(record("b"))
    request = PingRequest(origin(record("q")), 42, "b", record("b").identity, "b:7000", 400)
    ((address, ping),) = sent(bed.receive(request, "q:1"), Ping)
    assert address == "b:7000"
    assert isinstance(ping, Ping)
    effects = bed.receive(Ack(origin(record("b")), ping.number), "b:7000")
    assert sent(effects) == [("q:1", Ack(origin(bed.swim.me), 42))]
    assert not sent(bed.run(1.0), Nack)


def test_helper_nacks_at_80_percent_and_passes_a_late_answer_on() -> None:
    """Well inside the deadline, and not twice."""
    bed = bed_with()
    request = PingRequest(origin(record("q")), 42, "b", 98, "b:7000", 400)
    ((_, ping),) = sent(bed.receive(request, "q:1"), Ping)
    assert isinstance(ping, Ping)
    assert sent(bed.run(0.31)) == []
    assert sent(bed.run(0.02)) == [("q:1", Nack(origin(bed.swim.me), 42))]
    bed.run(0.4)
    effects = bed.receive(Ack(origin(record("b")), ping.number), "b:7000")
    assert (("q:1", Ack(origin(bed.swim.me), 42))) in sent(effects)


def test_helper_does_not_vouch_for_another_identity() -> None:
    """An answer by someone else at that address is none."""
    bed = bed_with()
    request = PingRequest(origin(record("q")), 42, "b", 98, "b:7000", 400)
    ((_, ping),) = sent(bed.receive(request, "q:1"), Ping)
    assert isinstance(ping, Ping)
    assert sent(bed.receive(Ack(origin(record("z")), ping.number), "b:7000"), Ack) == []


def test_row_19_relays_and_probes_are_bounded() -> None:
    """grafana alloy 2916: a flood of requests leaves bounded state, and pings are answered."""
    bed = bed_with(record("b"))
    me = bed.swim.me
    for i in range(3000):
        bed.receive(PingRequest(origin(record("q")), i, "b", 98, "b:7000", 30_000_000))
    assert len(bed.swim._relays._relays) == 256
    assert bed.swim.counts["relays_full"] == 3000 - 256
    assert sent(bed.receive(Ping(origin(record("b")), 1, me.name, me.identity)), Ack)
    bed.run(61)
    assert len(bed.swim._relays._relays) == 0
