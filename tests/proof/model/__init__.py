"""An exhaustive model of the protocol: every interleaving of a small fleet, checked against the guarantees."""
