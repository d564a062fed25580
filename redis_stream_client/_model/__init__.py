"""Values: what is named, counted, configured and raised."""
