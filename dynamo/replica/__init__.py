"""One node's copies of the data, here or across peer HTTP, behind one port."""
