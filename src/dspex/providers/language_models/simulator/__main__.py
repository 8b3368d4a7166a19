"""`python -m dspex.providers.language_models.simulator`: the server alone, for tests."""

import argparse
import sys
from pathlib import Path

from dspex.kit.errors import DspexError
from dspex.providers.language_models.simulator.engine import SimulatorOptions
from dspex.providers.language_models.simulator.faults import parse_latency
from dspex.providers.language_models.simulator.scripts import Script, load_script
from dspex.providers.language_models.simulator.serving import run_simulator


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulator", description="An OpenAI-compatible simulated model.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9300)
    parser.add_argument("--latency", default="0ms", help="500ms, uniform:100ms-300ms, lognormal:200ms,0.5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--teach", action="store_true")
    given = parser.parse_args()
    try:
        options = SimulatorOptions(
            seed=given.seed,
            latency=parse_latency(given.latency),
            script=load_script(given.script) if given.script else Script(),
            teach=given.teach,
        )
        run_simulator(given.host, given.port, options, ready=_announce)
    except DspexError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


def _announce(base_url: str) -> None:
    sys.stdout.write(f"{base_url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
