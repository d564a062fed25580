"""The demo: worker processes that use the public interface, two of which come to harm, and proof that it did none.

`worker` is the program that a user would write. Everything else here starts it, harms it, and checks with Redis
what became of the streams.
"""
