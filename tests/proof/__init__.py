"""What goes across: the model, the stateful tests, chaos, the soak, and what it all costs."""
