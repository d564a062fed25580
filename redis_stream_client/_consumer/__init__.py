"""The tasks of one member of the fleet."""
