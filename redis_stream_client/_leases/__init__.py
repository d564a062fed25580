"""What this client owns and believes. No I/O."""
