"""Whatever happens to the members while the ring changes: one sequence of layouts, one ring."""

from __future__ import annotations

import pytest

from tests.support.rings import Asked, Ledger, changes, one_ring, watched
from tests.support.shells import Shell, World

FIRST = ("n1", "n2", "n3")
MISHAPS = 30


class Story:
    """One world and all that happens to it."""

    def __init__(self, seed: int, ledger: Ledger) -> None:
        self.world = World(seed)
        self.rng = self.world.rng
        self.ledger = ledger
        self.asked: list[tuple[Shell, Asked]] = []
        for name in FIRST:
            self._start(name)
        self.world.until(lambda: one_ring(self.world, *FIRST), "founded")

    def tell(self) -> None:
        acts = (self._kill, self._start_again, self._join, self._leave, self._remove, self._cut)
        for _ in range(MISHAPS):
            self.rng.choices(acts, (4, 6, 3, 3, 4, 2))[0]()
            self.world.run(self.rng.choice((0.05, 0.5, 2.0, 8.0)) * self.rng.random())
            self.ledger.check()

    def end(self) -> None:
        """All is mended, and everybody who has a part in the ring is there."""
        world = self.world
        world.heal()
        for name in sorted(world.nodes):
            if not world.nodes[name].up and not world.nodes[name].book.out:
                self._start(name)
        world.until(lambda: one_ring(world), "one ring", 120)
        world.run(40)
        assert one_ring(world)
        assert all(asked.done for shell, asked in self.asked if shell.up)
        births = {shell.view.layout.birth for shell in world.up}
        assert births == self.ledger.births(), "it was founded once"

    def _start(self, name: str) -> None:
        nodes = self.world.nodes
        known = {n for n in nodes if nodes[n].book.layout.version and not nodes[n].book.out}
        seeds = sorted((known or {*FIRST}) - {name})
        shell = self.world.start(name, *seeds)
        shell.view.on_left = lambda: self.world.clock.callLater(0, shell.kill)

    def _some(self) -> Shell:
        return self.rng.choice(sorted(self.world.up, key=lambda shell: shell.name))

    def _kill(self) -> None:
        if len(self.world.up) > 2:
            self._some().kill()

    def _start_again(self) -> None:
        down = [s for s in self.world.nodes.values() if not s.up and not s.book.out]
        if down:
            self._start(self.rng.choice(sorted(down, key=lambda shell: shell.name)).name)

    def _join(self) -> None:
        """Somebody new; who left or was removed comes back under another name."""
        inside = [name for name, shell in self.world.nodes.items() if not shell.book.out]
        if len(inside) < 7:
            self._start(f"n{len(self.world.nodes) + 1}")

    def _leave(self) -> None:
        shell = self._some()
        again = self.rng.random() < 0.3
        change = changes(shell).stay() if again else changes(shell).leave(force=True)
        self.asked.append((shell, Asked(change)))

    def _remove(self) -> None:
        """Whoever is believed to be dead; of two, only one that is: there, who says so decides."""
        shell = self._some()
        gone = sorted(n for n, word in shell.liveness().items() if word == "dead")
        if len(shell.ring()) == 2:
            gone = [name for name in gone if not self.world.nodes[name].up]
        if gone:
            change = changes(shell).remove(self.rng.choice(gone), force=True)
            self.asked.append((shell, Asked(change)))

    def _cut(self) -> None:
        if self.rng.random() < 0.5:
            self.world.heal()
        else:
            self.world.apart(*self.rng.sample(sorted(self.world.nodes), self.rng.randint(1, 3)))


@pytest.mark.parametrize("seed", range(30))
def test_any_mishaps_end_in_one_ring(seed: int) -> None:
    """No version was ever decided twice, and in the end all go by one steady layout."""
    with watched() as ledger:
        story = Story(seed, ledger)
        story.tell()
        story.end()


def test_the_stories_change_the_ring() -> None:
    """Or they would prove nothing."""
    versions = []
    for seed in range(5):
        with watched() as ledger:
            Story(seed, ledger).tell()
            versions.append(max(version for _, version in ledger.adopted))
    assert sum(versions) > 50
