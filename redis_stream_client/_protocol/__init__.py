"""Our scripts, and a typed stub for each: by subject, one module each."""
