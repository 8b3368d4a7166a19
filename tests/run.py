"""Everything `make test` does: lint, types, import contracts, tests. Quiet when green.

The last line is pytest's own, or says which step failed.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

STEPS = (
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("types", ["mypy", "--no-error-summary"]),
    ("import contracts", ["lint-imports"]),
)

# Many tests wait, for leases that run out and processes that start, and leave a core to others. Of many cores not all:
# each process has its own servers and databases.
PROCESSES = min(2 * (os.cpu_count() or 1), 8)
# pytest's exit code when it ran to the end.
SOME_FAILED = 1


def main() -> int:
    for name, command in STEPS:
        started = time.monotonic()
        tool = Path(sys.executable).with_name(command[0])
        done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout + done.stderr)
            print(f"make test: {name} failed; run `make lint types contracts` to see each alone.")
            return 1
        print(f"{name}: ok ({time.monotonic() - started:.0f} s)", flush=True)
    # Where Python is told to write no bytecode, hundreds of processes would each compile all of it when they start.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], check=False)
    # Files stay whole, as their tests share servers, and in order: short ones come last and fill the gaps.
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        str(PROCESSES),
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        *sys.argv[1:],
    ]
    code = subprocess.run(tests, check=False).returncode
    return alone() if code == SOME_FAILED else code


def alone() -> int:
    """What failed once more, without another test beside it: some faults need a machine that keeps up.

    What fails again is broken. What passes is named: it waits too little somewhere, and wants mending.
    """
    print("\nOnce more, alone. What passes now is unsteady: find out what it does not wait for.", flush=True)
    again = [sys.executable, "-m", "pytest", "--last-failed", "--last-failed-no-failures=none", "--maxfail=1"]
    return subprocess.run([*again, "-rp"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
