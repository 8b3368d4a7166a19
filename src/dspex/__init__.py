"""DSPex runs DSPy programs in production: compiled by DSPy, served without it.

From Python: `dspex.run(signature, **inputs)` for one answer, `dspex.open(config)` for the programs of a
configuration. Everything else is behind the HTTP interface and the `dspex` command.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex.kit.version import VERSION

if TYPE_CHECKING:
    from dspex.application.embedded import Embedded

__version__ = VERSION
__all__ = ["open", "run"]


def open(config: str | Path | None = None, **overrides: Any) -> "Embedded":
    """The programs of a configuration in this process, without HTTP; use it in a `with` statement.

    `overrides` are top-level settings such as `data_dir`. Raises `dspex.kit.errors.DspexError` kinds.
    """
    from dspex.application.embedded import Embedded

    return Embedded(Path(config) if config else None, overrides)


def run(
    signature: str | Mapping[str, Any], *, module: str = "predict", model: str | None = None, **inputs: Any
) -> Any:
    """Runs a signature once and returns its outputs by name: `run("question -> answer", question="...")`.

    Reads `dspex.yaml` in the working directory for models; without one the simulator answers.
    """
    with open() as node:
        return node.run(signature, inputs, module=module, model=model)["outputs"]
