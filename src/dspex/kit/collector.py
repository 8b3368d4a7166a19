"""When Python's garbage collector looks, in a process that serves."""

import gc

# Python looks after every 700 objects more. Requests that wait for a model are some three hundred each and no
# garbage: with 256 of them it walked through them all, for 0.1 s at a time, and whoever came meanwhile waited.
YOUNG = 10_000
OLDER = 20


def settle() -> None:
    """Called when something large is loaded that stays: it is not looked at again, unless by `clear_out`."""
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, OLDER)
    gc.enable()


def clear_out() -> None:
    """Called when something large that had settled was let go, as by a reload. Halts the process for some tenths of a

    second, as it looks at everything.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
