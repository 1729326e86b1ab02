"""Every engine against a dictionary, under arbitrary histories."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dynamo.storage.engine import Engine, Transaction, View
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.memory_engine import MemoryEngine
from tests.support.sim_disk import WaitingEngine

Model = dict[str, dict[bytes, bytes]]

KEYS = st.one_of(
    st.binary(min_size=1, max_size=2), st.sampled_from([b"k" * 511, b"k" * 510, b"\xff" * 511])
)
VALUES = st.one_of(st.binary(max_size=8), st.sampled_from([b"v" * 3000, b"w" * 20_000]))
NAMES = st.sampled_from(["records", "refs"])
STEPS = st.lists(st.tuples(NAMES, KEYS, st.one_of(st.none(), VALUES)), max_size=6)
BATCHES = st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=4)


class Boom(Exception):
    """What a job that is to fail raises."""


def make_job(steps: list[Any], fails: bool) -> Any:
    """A job that does the steps, reads each key back, and may fail in the end."""

    def job(t: Transaction) -> list[bytes | None]:
        read = []
        for table, key, value in steps:
            if value is None:
                t.delete(table, key)
            else:
                t.put(table, key, value)
            read.append(t.get(table, key))
        if fails:
            raise Boom
        return read

    return job


def apply(model: Model, steps: list[Any]) -> None:
    for table, key, value in steps:
        if value is None:
            model[table].pop(key, None)
        else:
            model[table][key] = value


def copied(model: Model) -> Model:
    return {table: dict(rows) for table, rows in model.items()}


class EngineMachine(RuleBasedStateMachine):
    """Batches, held views and reopening; the dictionary says what must be read."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Model = {"records": {}, "refs": {}}
        self.held: list[tuple[View, Model]] = []
        self.engine = self.open()

    def open(self) -> Engine:
        raise NotImplementedError

    @rule(batch=BATCHES)
    def commit(self, batch: list[Any]) -> None:
        outcomes = self.engine.commit([make_job(steps, fails) for steps, fails in batch])
        for (steps, fails), outcome in zip(batch, outcomes, strict=True):
            if fails:
                assert isinstance(outcome, Boom)
            else:
                apply(self.model, steps)
                assert outcome == [value for _, _, value in steps]

    @precondition(lambda self: len(self.held) < 3)
    @rule()
    def hold_a_view(self) -> None:
        self.held.append((self.engine.view(), copied(self.model)))

    @precondition(lambda self: self.held)
    @rule()
    def look_through_a_held_view(self) -> None:
        view, model = self.held.pop(0)
        for table, rows in model.items():
            assert list(view.scan(table, b"")) == sorted(rows.items())

    @rule()
    def reopen(self) -> None:
        self.held.clear()
        self.engine.close()
        self.engine = self.open()

    @rule(table=NAMES, start=st.binary(max_size=2), stop=st.one_of(st.none(), KEYS))
    def scan(self, table: str, start: bytes, stop: bytes | None) -> None:
        rows = sorted(self.model[table].items())
        wanted = [(k, v) for k, v in rows if k >= start and (stop is None or k < stop)]
        assert list(self.engine.view().scan(table, start, stop)) == wanted
        assert self.engine.commit([lambda t: list(t.scan(table, start, stop))]) == [wanted]

    @invariant()
    def every_key_reads_as_in_the_dictionary(self) -> None:
        view = self.engine.view()
        for table, rows in self.model.items():
            assert all(view.get(table, key) == value for key, value in rows.items())

    def teardown(self) -> None:
        self.held.clear()
        self.engine.close()


class LmdbMachine(EngineMachine):
    """On disk."""

    def open(self) -> Engine:
        if not hasattr(self, "directory"):
            self.directory = tempfile.TemporaryDirectory()
        return LmdbEngine(self.directory.name, reserve_bytes=0)

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


class MemoryMachine(EngineMachine):
    """In memory; reopening hands over the tables."""

    def open(self) -> Engine:
        engine = getattr(self, "engine", None)
        return MemoryEngine(engine.tables if engine else None)


class SimMachine(EngineMachine):
    """On a simulated drive; reopening is a clean stop and a start."""

    def open(self) -> Engine:
        return WaitingEngine(getattr(self, "engine", None))


PROFILE = settings(
    deadline=None, max_examples=40, stateful_step_count=20, suppress_health_check=list(HealthCheck)
)
TestLmdbAgainstADictionary = LmdbMachine.TestCase
TestLmdbAgainstADictionary.settings = PROFILE
TestMemoryAgainstADictionary = MemoryMachine.TestCase
TestMemoryAgainstADictionary.settings = PROFILE
TestSimAgainstADictionary = SimMachine.TestCase
TestSimAgainstADictionary.settings = PROFILE
