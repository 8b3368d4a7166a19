"""Generated examples: the same in every run, on machines of any speed, and nothing kept between runs."""

from functools import cache
from pathlib import Path

import hypothesis
from hypothesis.internal import constants_ast
from hypothesis.internal.conjecture import providers

SOURCE = Path(__file__).parents[2] / "src" / "dspex"

hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")


@cache
def _constants() -> constants_ast.Constants:
    """Of all our code. Hypothesis tries those of the modules that happen to be loaded, so that examples would change

    with the tests that ran before in the same process.
    """
    found = constants_ast.Constants()
    for path in sorted(SOURCE.rglob("*.py")):
        found |= constants_ast._constants_from_source(path.read_bytes(), limit=True)
    return found


providers._get_local_constants = _constants
