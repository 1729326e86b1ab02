"""What is told of a member, from what it said itself or from what was kept of it."""

from __future__ import annotations

from dynamo.ports import Liveness, MemberStatus
from dynamo.wire.codec import MemberFacts
from dynamo.wire.messages import Hello


def placed(facts: MemberFacts) -> tuple[str, str, float]:
    """What ownership depends on."""
    return (facts.name, facts.zone, facts.weight)


def by_facts(facts: MemberFacts) -> Hello:
    """What is known of a member that has not answered since this node started."""
    return Hello(
        name=facts.name,
        cluster_name="",
        partitions=0,
        zone=facts.zone,
        weight=facts.weight,
        api=facts.api,
        cluster=facts.cluster,
        actor=facts.actor,
        boot="",
        joined=False,
        actors={},
        peers=(),
        hints={},
        buckets="",
        objects=0,
        bytes=0,
    )


def status(hello: Hello, liveness: Liveness, restarts: int) -> MemberStatus:
    return MemberStatus(
        name=hello.name,
        api=hello.api,
        cluster=hello.cluster,
        zone=hello.zone,
        weight=hello.weight,
        liveness=liveness,
        role="active" if hello.joined or not hello.boot else "joining",
        incarnation=restarts,
        objects=hello.objects,
        bytes=hello.bytes,
        hints=sum(hello.hints.values()),
    )
