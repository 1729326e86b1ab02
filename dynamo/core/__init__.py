"""Values and state machines: facts in, decisions out; no I/O, no clock, no dice."""
