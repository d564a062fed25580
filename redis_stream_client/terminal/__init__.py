"""What the command line and the demo show on a terminal: bars, tables, a live screen. It knows no Redis.

It needs rich, which the extra ``cli`` brings.
"""
