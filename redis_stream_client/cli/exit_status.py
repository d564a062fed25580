"""What the commands' exit statuses say."""

OK = 0
FAILED = 1  # a check, or some of what was asked for
UNUSABLE = 2  # as argparse: what was asked for cannot be done
INTERRUPTED = 130
