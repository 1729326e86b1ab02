"""A request's way from preference list to quorum to answer."""
