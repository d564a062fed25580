"""Our scripts, and a typed stub for each."""
