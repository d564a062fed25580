"""Our Lua scripts, and a typed stub for each. One module for each subject."""
