"""Following data streams, and the records of their progress."""
