"""Reading data streams, and their progress records."""
