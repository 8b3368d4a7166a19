"""When Python's garbage collector looks, in a process that serves."""

import gc

# Python looks after every 700 objects more. Requests that wait for a model are some three hundred each and no
# garbage: with 256 of them it walked through them all, for 0.1 s at a time, and whoever came meanwhile waited.
YOUNG = 10_000
OLDER = 20


def settle() -> None:
    """Called when something large is loaded: it stays for the life of the process and is never looked at again."""
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, OLDER)
    gc.enable()
