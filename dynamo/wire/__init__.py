"""What is stored and what travels, as bytes: every structure begins with a format version."""
