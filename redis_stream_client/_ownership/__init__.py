"""Every change of owner."""
