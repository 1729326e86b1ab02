"""All mutants, by name.

Mutants of a feature go into the module of its kind here, or into one of their own; each needs a
probe in `tests.mutants.probes`.
"""

from __future__ import annotations

from tests.mutants import (
    of_antientropy,
    of_buckets,
    of_hints,
    of_members,
    of_quorums,
    of_records,
    of_rings,
    of_storage,
)
from tests.mutants.patch import Mutant

_MODULES = (
    of_records,
    of_quorums,
    of_storage,
    of_hints,
    of_antientropy,
    of_buckets,
    of_members,
    of_rings,
)

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for module in _MODULES for mutant in module.MUTANTS
}
