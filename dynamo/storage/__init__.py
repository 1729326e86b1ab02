"""What survives a crash: records and hints in an ordered store, chunks as files."""
