"""`dspex` under cProfile: python -m benchmarks.profiled FILE serve ...; the profile is written at the end."""

import cProfile
import sys

from dspex.__main__ import main

if __name__ == "__main__":
    file = sys.argv.pop(1)
    profile = cProfile.Profile()
    try:
        profile.runcall(main)
    finally:
        profile.dump_stats(file)
