"""Probes, helpers, the stream, and what they do to suspicion and health.

The names follow memberlist's probe tests (state_test.go, net_test.go).
"""

from __future__ import annotations

import attrs
import pytest

from dynamo.core import suspicion
from dynamo.core.effects import ExchangeState, Notice, ProbeByStream
from dynamo.core.members import Liveness, Member, Update
from dynamo.core.messages import Ack, Gossip, Nack, Ping, PingRequest
from dynamo.core.profiles import LAN
from tests.support.swim_machine import Bed, events, origin, record, sent, told

SUSPECT = Liveness.SUSPECT
HELPERS = [record(name) for name in ("h1", "h2", "h3")]
PLAIN = attrs.evolve(LAN, lifeguard=False)


def bed_with(*members: Member, **more: object) -> Bed:
    """A machine that knows these, with no rumours left."""
    bed = Bed(attrs.evolve(LAN, **more)).know(*members)  # type: ignore[arg-type]
    bed.swim._post.rumours.clear()
    return bed


def ack(bed: Bed, member: Member, number: int) -> None:
    """The member answers."""
    bed.receive(Ack(origin(member), number), member.address)


def test_probe() -> None:
    """An answered ping is the end of it: two packets, nobody suspected."""
    bed = bed_with(record("b"))
    ping = bed.until_ping("b")
    ack(bed, record("b"), ping.number)
    effects = bed.run(0.75)
    assert sent(effects, PingRequest) == []
    assert bed.liveness("b") == "alive"


def test_ping_names_its_target_and_is_answered() -> None:
    """The answer goes where the question came from, under the same number."""
    bed = bed_with(record("b"))
    me = bed.swim.me
    effects = bed.receive(Ping(origin(record("b")), 77, me.name, me.identity), "10.0.0.9:4444")
    assert sent(effects) == [("10.0.0.9:4444", Ack(origin(me), 77))]


def test_ping_for_the_wrong_name_is_answered_by_who_is_there() -> None:
    """So that the prober learns at once that the one it looks for is gone."""
    bed = bed_with(record("b"))
    ((_, answer),) = sent(bed.receive(Ping(origin(record("b")), 5, "somebody", 1)))
    assert answer.origin.name == "me"


def test_probe_suspect() -> None:
    """No answer by the deadline: helpers are asked, the stream is tried, then it is suspect."""
    bed = bed_with(record("b"), *HELPERS)
    bed.until_ping("b")
    effects = bed.run(LAN.probe_timeout + 0.01)
    asked = [m for _, m in sent(effects, PingRequest) if isinstance(m, PingRequest)]
    assert {m.target for m in asked} == {"b"}
    assert len(asked) == LAN.indirect_probes
    assert [e.member.name for e in effects if isinstance(e, ProbeByStream)] == ["b"]
    effects = bed.run(LAN.probe_deadline - LAN.probe_timeout)
    assert ("suspected", "b") in events(effects)


def test_probe_confirms_a_suspicion() -> None:
    """An own failed probe of a suspect counts as one confirmation and is passed on."""
    members = [record("b"), *HELPERS, record("x")]
    bed = bed_with(*members, confirmations=3)
    ping = bed.until_ping("b")
    bed.hear(Update(record("b", 1, SUSPECT), "x"))
    before = bed.swim._verdicts._suspicions["b"].ends
    effects = bed.run(LAN.probe_deadline)
    assert ping.target == "b"
    assert bed.swim._verdicts._suspicions["b"].ends < before
    accusers = {u.source for _, m in sent(effects) for u in m.updates if u.member.name == "b"}
    assert "me" in accusers


def test_suspicion_becomes_a_verdict_at_its_time() -> None:
    """Not before the shortest time-out, and then at once."""
    bed = bed_with(record("b"), record("c"))
    bed.hear(Update(record("b", 1, SUSPECT), "c"))
    low, _ = suspicion.bounds(LAN, 3)
    bed.run(low - 0.01)
    assert bed.liveness("b") == "suspect"
    bed.run(0.02)
    assert bed.liveness("b") == "dead"


def test_confirmations_shorten_a_suspicion() -> None:
    """Without them it lasts the longest time, with all of them the shortest."""
    for sources, share in ((["x"], 6.0), (["x", "h1", "h2", "h3"], 1.0)):
        bed = bed_with(record("b"), *HELPERS, record("x"))
        low, _ = suspicion.bounds(LAN, bed.swim._table.running)
        for source in sources:
            bed.hear(Update(record("b", 1, SUSPECT), source))
        running = bed.swim._verdicts._suspicions["b"]
        assert running.ends - running.start == pytest.approx(share * low)


def test_stream_fallback() -> None:
    """A member that answers by stream alone stays alive; one notice, and news by stream."""
    bed = bed_with(record("b"), *HELPERS)
    notices = []
    for _ in range(3):
        ping = bed.until_ping("b")
        bed.run(LAN.probe_timeout + 0.01)
        effects = bed.swim.streamed(bed.now, ping.number, "answered")
        notices += [e for e in effects if isinstance(e, Notice)]
        assert ExchangeState("b:7000", "b") in effects
    assert notices == [Notice("udp_blocked", "b")]
    assert bed.liveness("b") == "alive"
    ping = bed.until_ping("b")
    ack(bed, record("b"), ping.number)
    assert bed.swim._table.get("b").blocked is False  # type: ignore[union-attr]


def test_stream_fallback_disabled() -> None:
    """Off, it is not tried."""
    bed = bed_with(record("b"), *HELPERS, stream_probe=False)
    bed.until_ping("b")
    assert not [e for e in bed.run(0.5) if isinstance(e, ProbeByStream)]


def test_refused_stream_ends_the_probe_early_but_not_without_the_helpers() -> None:
    """Nothing listens there: helpers still get a round trip, and may save the member."""
    bed = bed_with(record("b"), *HELPERS)
    ping = bed.until_ping("b")
    bed.run(LAN.probe_timeout)
    bed.swim.streamed(bed.now, ping.number, "refused")
    bed.run(0.05)
    assert bed.liveness("b") == "alive"
    bed.run(0.06)
    assert bed.liveness("b") == "suspect"
    assert bed.swim.health == 0


def test_failed_stream_changes_nothing() -> None:
    """A stream that just fails is no news."""
    bed = bed_with(record("b"))
    ping = bed.until_ping("b")
    assert bed.swim.streamed(bed.now, ping.number, "failed") == []
    assert bed.swim.streamed(bed.now, 1, "answered") == []


def test_row_10_another_identity_answers() -> None:
    """serf 115, memberlist 241: the old one is dead at once when its address is another's."""
    bed = bed_with(record("b"), *HELPERS)
    ping = bed.until_ping("b")
    effects = bed.receive(Ack(origin(record("new", 3)), ping.number), "b:7000")
    assert ("failed", "b") in events(effects)
    bed = bed_with(record("b"))
    ping = bed.until_ping("b")
    effects = bed.swim.streamed(bed.now, ping.number, "other")
    assert ("failed", "b") in events(effects)


def test_row_10_a_record_that_moved_meanwhile_is_not_buried() -> None:
    """The member itself had said under a higher incarnation that it is elsewhere."""
    bed = bed_with(record("b"))
    ping = bed.until_ping("b")
    bed.hear(Update(record("b", 2, address="b2:1")))
    bed.receive(Ack(origin(record("new", 3)), ping.number), "b:7000")
    assert bed.liveness("b") == "alive"


def test_awareness_degraded_and_improved() -> None:
    """A failed probe without nacks costs one for each, a success gives one back, and the next
    probe waits accordingly."""
    bed = bed_with(record("b"), *HELPERS)
    bed.until_ping("b")
    bed.run(LAN.probe_deadline)
    assert bed.swim.health == 3
    start = bed.now
    while not sent(bed.run(0.05), Ping):
        assert bed.now - start < 5
    target = bed.until_ping("h1", 200)
    before = bed.swim.health
    ack(bed, HELPERS[0], target.number)
    assert bed.swim.health == before - 1


def test_awareness_missed_nacks_count_one_by_one() -> None:
    """Two of three helpers were heard: one is missing."""
    bed = bed_with(record("b"), *HELPERS)
    ping = bed.until_ping("b")
    bed.run(LAN.probe_timeout)
    for helper in HELPERS[:2]:
        bed.receive(Nack(origin(helper), ping.number), helper.address)
    bed.run(LAN.probe_deadline - LAN.probe_timeout)
    assert bed.swim.health == 1
    assert bed.liveness("b") == "suspect"


def test_prober_of_a_dead_member_stays_healthy_when_all_helpers_nack() -> None:
    """The flaw of memberlist's nack timing (swift-cluster-membership 6 and 14) is absent."""
    bed = bed_with(record("b"), *HELPERS)
    ping = bed.until_ping("b")
    bed.run(LAN.probe_timeout)
    for helper in HELPERS:
        bed.receive(Nack(origin(helper), ping.number), helper.address)
    bed.run(LAN.probe_deadline - LAN.probe_timeout)
    assert (bed.liveness("b"), bed.swim.health) == ("suspect", 0)


def test_health_counts_without_helpers() -> None:
    """With nobody to nack a failed probe costs one."""
    bed = bed_with(record("b"))
    bed.until_ping("b")
    bed.run(LAN.probe_deadline)
    assert bed.swim.health == 1


def test_buddy() -> None:
    """The ping to a suspect says what it is suspected of, and so does the ack."""
    bed = bed_with(record("b"), record("c"))
    effects = bed.hear(Update(record("b", 1, SUSPECT), "c"))
    ((address, ping),) = sent(effects, Ping)
    assert address == "b:7000"
    assert ping.updates == (Update(record("b", 1, SUSPECT), "c"),)
    bed.swim._post.rumours.clear()
    me = bed.swim.me
    effects = bed.receive(Ping(origin(record("b")), 3, me.name, me.identity))
    assert told(effects) == [record("b", 1, SUSPECT)]


def test_hearing_an_accusation_makes_a_few_look_for_themselves() -> None:
    """About 2 x confirmations members probe the accused at once, not all of a large cluster."""
    looked = 0
    for seed in range(5000, 5400):
        bed = Bed(seed=seed).know(*[record(f"m{i}") for i in range(59)])
        looked += len(sent(bed.hear(Update(record("m3", 1, SUSPECT), "m4")), Ping))
    assert 400 * 3 / 60 < looked < 400 * 9 / 60


def test_plain_swim_has_no_buddy_no_nack_no_stream() -> None:
    """The switch for comparisons."""
    bed = Bed(PLAIN).know(record("b"), *HELPERS)
    bed.swim._post.rumours.clear()
    ping = bed.until_ping("b")
    effects = bed.run(LAN.probe_deadline)
    assert sent(effects, PingRequest)
    assert not [e for e in effects if isinstance(e, ProbeByStream)]
    assert bed.swim.health == 0
    assert ping.updates == ()
    relay = PingRequest(origin(HELPERS[0]), 9, "b", 98, "b:7000", 400)
    assert not sent(bed.receive(relay) + bed.run(1.0), Nack)


def test_late_and_unknown_answers_are_nothing() -> None:
    """Sequence numbers: an answer counts once, in time, and by whom it was asked of."""
    bed = bed_with(record("b"), *HELPERS)
    ping = bed.until_ping("b")
    bed.run(LAN.probe_deadline)
    ack(bed, record("b"), ping.number)
    bed.receive(Nack(origin(record("h1")), ping.number))
    assert bed.liveness("b") == "suspect"


def test_a_probe_overtaken_by_a_refutation_accuses_nobody() -> None:
    """The member spoke under a new incarnation while the probe was under way."""
    bed = bed_with(record("b"), *HELPERS)
    bed.until_ping("b")
    bed.hear(Update(record("b", 2)))
    bed.run(LAN.probe_deadline)
    assert bed.liveness("b") == "alive"


def test_row_27_waking_up_accuses_nobody() -> None:
    """CASSANDRA-9183: after a pause of 1 to 60 s no deadline counts, and the score shows it."""
    for pause in (1.0, 7.0, 60.0):
        bed = bed_with(record("b"), *HELPERS)
        ping = bed.until_ping("b")
        bed.hear(Update(record("h1", 1, SUSPECT), "h2"))
        bed.now += pause
        effects = bed.swim.tick(bed.now)
        assert events(effects) == []
        assert [e.code for e in effects if isinstance(e, Notice)] == ["stalled"]
        ack(bed, record("b"), ping.number)
        bed.run(0.2)
        assert (bed.liveness("b"), bed.liveness("h1")) == ("alive", "suspect")
        assert bed.swim.counts["stalls"] == 1


def test_row_27_a_pause_does_not_count_for_confirmations_that_come_later() -> None:
    """A suspicion from before the pause is as young as before it."""
    bed = bed_with(record("b"), *HELPERS, record("x"))
    bed.hear(Update(record("b", 1, SUSPECT), "x"))
    bed.now += 60
    bed.swim.tick(bed.now)
    bed.hear(Update(record("b", 1, SUSPECT), "h1"), Update(record("b", 1, SUSPECT), "h2"))
    bed.run(1.0)
    assert bed.liveness("b") == "suspect"


def test_evidence_of_success_answers_a_probe() -> None:
    """The store's own request was answered: as good as an ack."""
    bed = bed_with(record("b"))
    bed.until_ping("b")
    bed.swim.evidence(bed.now, "b", True)
    bed.run(LAN.probe_deadline)
    assert bed.liveness("b") == "alive"


def test_evidence_of_success_delays_a_verdict_but_not_for_ever() -> None:
    """An answer since the suspicion began puts the verdict off by the shortest time-out."""
    bed = bed_with(record("b"), record("c"))
    bed.hear(Update(record("b", 1, SUSPECT), "c"))
    low, high = suspicion.bounds(LAN, 3)
    bed.run(low / 2)
    bed.swim.evidence(bed.now, "b", True)
    bed.run(low * 0.9)
    assert bed.liveness("b") == "suspect"
    bed.run(low * 0.2)
    assert bed.liveness("b") == "dead"
    bed = bed_with(record("b"), record("c"))
    bed.hear(Update(record("b", 1, SUSPECT), "c"))
    for _ in range(int(high / 0.5) + 1):
        bed.swim.evidence(bed.now, "b", True)
        bed.run(0.5)
    assert bed.liveness("b") == "dead"


def test_evidence_of_failure_brings_the_probe_forward() -> None:
    """At once, but not more than once an interval, and it convicts nobody by itself."""
    bed = bed_with(*[record(f"m{i}") for i in range(30)])
    effects = bed.swim.evidence(bed.now, "m7", False)
    assert [m.target for _, m in sent(effects, Ping) if isinstance(m, Ping)] == ["m7"]
    assert events(effects) == []
    bed.run(0.8)
    assert sent(bed.swim.evidence(bed.now, "m7", False), Ping) == []
    assert bed.swim.evidence(bed.now, "nobody", False) == []


def test_evidence_about_a_dead_member_tells_it() -> None:
    """A dead one that answers gets a ping with what is believed of it."""
    bed = bed_with(record("b", 1, Liveness.DEAD), record("c"))
    bed.swim._post.rumours.clear()
    effects = bed.swim.evidence(bed.now, "b", True)
    assert told(effects) == [record("b", 1, Liveness.DEAD)]
    assert bed.swim.evidence(bed.now, "b", True) == []
    assert sent(bed.swim.evidence(bed.now, "b", False)) == []


def test_a_message_from_the_dead_is_answered_with_the_accusation() -> None:
    """Row 3 from the other side: whoever is held dead and writes, learns it."""
    bed = bed_with(record("b", 1, Liveness.DEAD), record("c"))
    bed.run(40)
    effects = bed.receive(Gossip(origin(record("b"))), "b:7000")
    assert told(effects) == [record("b", 1, Liveness.DEAD)]
