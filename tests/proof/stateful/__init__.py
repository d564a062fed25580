"""What `proof/test_stateful.py` plays with: consumers that stall and die, and the scripts of past failures."""
