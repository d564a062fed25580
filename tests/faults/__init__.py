"""What goes across: every fault, on real servers."""
