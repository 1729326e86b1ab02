"""Seeded faults in the node's code, for the simulator to find.

A simulator that finds nothing may be blind. Each mutant here is a small, named fault of a kind that
stores of this sort have had; `python -m tests.mutants` runs the simulator's seeds against every one
until a seed is violated, and fails if one is not. Nothing of this is within reach of a node that is
run: the faults live here, and are patched into the classes of one process, by name, for as long as
`dynamo`'s code runs under `applied`.
"""
