"""The timings of the membership protocol, and three sets of them.

Which one: `lan` for machines in one building, `wan` for clusters across regions, `local` for
processes of one machine and for tests. Formulae use n, the number of members believed to run.

The time from a crash to a verdict everywhere is the sum of the wait for the first probe of the
victim (about exponential with mean `probe_interval`), `probe_deadline` (a little more than
`probe_timeout` if its port refuses), the suspicion's minimum (`refused_share` of it if so) and a
spread of a few `gossip_interval`.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Settings:
    """Every timing of the protocol. Times are in seconds unless the name says otherwise."""

    probe_interval: float = 1.0
    """Between two probes by one member, times (health score + 1). A member sends 2 packets in it
    (a ping and an ack) when all is well; halving it doubles that and halves the first wait."""

    probe_timeout: float = 0.3
    """Until a direct ping counts as unanswered and helpers and the stream are tried; times
    (score + 1). Above the round trip plus the usual stalls of a process."""

    probe_deadline: float = 0.7
    """From the ping to the suspicion; times (score + 1). The helpers' share is what is left after
    `probe_timeout`. At most `probe_interval`, so that probes do not pile up."""

    nack_share: float = 0.8
    """Part of the helpers' time after which a helper says that it has no answer. Below 1, so
    that the nack arrives before the deadline and a healthy prober is not held to be ill."""

    indirect_probes: int = 3
    """Helpers asked when a direct ping is not answered; more bear more loss, at a packet each."""

    stream_probe: bool = True
    """Whether peer HTTP is tried alongside the helpers. Off: blocked UDP counts as death."""

    suspicion_multiplier: float = 1.6
    """The shortest suspicion is this * max(1, log10 n) * `probe_interval`. It must leave the
    accused time to hear of it and to refute; lower is faster and convicts shorter pauses."""

    suspicion_max_multiplier: float = 6.0
    """The longest suspicion, which holds while nobody confirms, in units of the shortest."""

    confirmations: int = 3
    """Independent accusers, besides the first, that bring the suspicion to its shortest. More
    protect better against a few members that are ill themselves. With fewer than this + 2
    members every suspicion is as short as the shortest."""

    refused_share: float = 0.5
    """Part of the shortest suspicion that is left when the suspect's own port refuses this
    member's stream probe: its process is gone, its host is not. 1: no difference."""

    awareness_max: int = 8
    """Number of health scores, so the slowest member probes this many times slower. 1: off."""

    gossip_interval: float = 0.2
    """Between packets that carry only news, while there is news; without it none is sent. The
    first packet after fresh news goes at once."""

    gossip_fanout: int = 3
    """Members told in one such round. A rumour reaches all in about log n / log fanout rounds."""

    gossip_to_dead: float = 30.0
    """How long a dead member is still told the news, so that it can refute at once."""

    retransmit_multiplier: int = 4
    """A member passes a rumour on this * ceil(log10(n + 1)) times."""

    exchange_interval: float = 30.0
    """Between full exchanges with one random member, times ceil(log2 n - 5) + 1 above 32
    members. It repairs what gossip missed."""

    reconnect_interval: float = 10.0
    """Between attempts to reach one dead member or one silent seed, for ever. A healed partition
    is whole again within about one of these."""

    seed_interval: float = 1.0
    """Between the first attempts to join, while no seed has answered; grows to 4 times this."""

    name_patience: float = 60.0
    """How long a newcomer waits for the holder of its name to be found dead before it stops."""

    remember_patience: float = 10.0
    """How long after a start a member known from disk may stay unheard of before it is
    suspected."""

    leave_linger: float = 1.0
    """How long a leaving member still spreads its leave and answers."""

    tombstone_seconds: float = 86400.0
    """How long a member that left is remembered, so that old news of it is known to be old.
    Longer than any member is away and comes back with what it knew."""

    tombstone_max: int = 1024
    """Members that left, remembered at most; and the same again of dead ones."""

    stall_min: float = 0.15
    """A wake-up later than this means that the process did not run; all deadlines are put off
    by the delay, and nobody is accused for what was not heard meanwhile."""

    persist_delay: float = 1.0
    """Changes of the view within this time are stored together."""

    lifeguard: bool = True
    """Off: plain SWIM, for comparison. No health score, nacks, growing suspicion, buddy,
    stream probe, put-off deadlines or confirming probes."""

    def __attrs_post_init__(self) -> None:
        for wrong, why in (
            (not 0 < self.probe_timeout < self.probe_deadline, "probe_timeout < probe_deadline"),
            (self.probe_deadline > self.probe_interval, "probe_deadline <= probe_interval"),
            (not 0 < self.nack_share < 1, "0 < nack_share < 1"),
            (self.indirect_probes < 0, "indirect_probes >= 0"),
            (self.suspicion_multiplier <= 0, "suspicion_multiplier > 0"),
            (self.suspicion_max_multiplier < 1, "suspicion_max_multiplier >= 1"),
            (self.confirmations < 0, "confirmations >= 0"),
            (not 0 < self.refused_share <= 1, "0 < refused_share <= 1"),
            (self.awareness_max < 1, "awareness_max >= 1"),
            (self.gossip_interval <= 0 or self.gossip_fanout < 1, "gossip is possible"),
            (self.retransmit_multiplier < 1, "retransmit_multiplier >= 1"),
            (min(self.exchange_interval, self.reconnect_interval) <= 0, "intervals > 0"),
            (self.seed_interval <= 0 or self.stall_min <= 0, "seed_interval, stall_min > 0"),
            (self.tombstone_max < 1, "tombstone_max >= 1"),
        ):
            if wrong:
                raise ValueError(f"gossip settings: it must hold that {why}")


LAN = Settings()
"""Round trips below a few milliseconds; stalls of a process below 0.3 s."""

WAN = Settings(
    probe_interval=5.0,
    probe_timeout=2.0,
    probe_deadline=4.5,
    suspicion_multiplier=2.0,
    gossip_interval=0.5,
    gossip_fanout=4,
    gossip_to_dead=60.0,
    exchange_interval=60.0,
    reconnect_interval=30.0,
    seed_interval=3.0,
    remember_patience=60.0,
    leave_linger=3.0,
    stall_min=0.5,
)
"""Round trips up to a second, some loss."""

LOCAL = Settings(
    probe_interval=0.25,
    probe_timeout=0.1,
    probe_deadline=0.22,
    suspicion_multiplier=2.4,
    gossip_interval=0.1,
    gossip_to_dead=15.0,
    retransmit_multiplier=3,
    exchange_interval=15.0,
    reconnect_interval=2.0,
    seed_interval=0.25,
    remember_patience=3.0,
    leave_linger=0.5,
    stall_min=0.05,
)
"""Processes of one machine: fast verdicts, eight packets a second."""

PROFILES = {"lan": LAN, "wan": WAN, "local": LOCAL}
"""The names a configuration may use."""
