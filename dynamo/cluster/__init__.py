"""Who the members are and which of them answer."""
