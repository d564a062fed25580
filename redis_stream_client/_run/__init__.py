"""`run()`: handlers, one for each stream."""
