"""The demo: worker processes run a handler, two of them come to harm, and the others are replaced one by one;
and proof that nothing was lost or done twice.

`worker` is the program that a user would write, and `ledger` how it guards what it writes. Everything else here
starts it, harms it, and judges by what Redis holds. A worker is not asked, and says nothing.
"""
