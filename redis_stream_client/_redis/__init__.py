"""Connections to any Redis: addresses, topology, and the meaning of errors."""
