"""What `dspex serve` hands down to its processes, by the names of the variables."""

import signal

# Settings, and where they came from.
HANDED_DOWN = "DSPEX_HANDED_DOWN"
# What a serving process sends its parent when jobs wait.
JOBS_WAIT = signal.SIGUSR1
PARENT = "_DSPEX_PARENT"
