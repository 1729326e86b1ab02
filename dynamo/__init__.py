"""A leaderless object store run by `twistd`."""
