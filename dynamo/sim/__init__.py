"""A whole cluster in one process, on virtual time, a virtual network and virtual disks.

The node is the one production runs: `dynamo.node.makeNode` is handed a simulated reactor, wall
clock, dice and disk, and nothing of it is patched. One seed decides everything, so a run can be
had again, byte for byte.

The caller's duties: none but a seed. `python -m dynamo.sim --seeds 100` runs a hundred;
`python -m dynamo.sim --seed 7 --trace` tells one as a story.
"""
