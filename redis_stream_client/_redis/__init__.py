"""Any Redis: addresses, connections, topology, and what errors mean."""
