"""DSPex runs DSPy programs in production: compiled by DSPy, served without it.

From Python: `dspex.run(signature, **inputs)` for one answer, `dspex.open(config)` for the programs of a
configuration. Everything else is behind the HTTP interface and the `dspex` command.
"""

from collections.abc import Mapping as _Mapping
from pathlib import Path as _Path
from typing import TYPE_CHECKING
from typing import Any as _Any

from dspex.kit.version import VERSION as __version__

if TYPE_CHECKING:
    from dspex.application.embedded import Embedded

__all__ = ["__version__", "open", "run"]


def open(config: str | _Path | None = None, **overrides: _Any) -> "Embedded":
    """The programs of a configuration in this process, without HTTP; use it in a `with` statement.

    `overrides` are top-level settings such as `database_url`. Raises `dspex.kit.errors.DspexError` kinds.
    """
    from dspex.application.embedded import Embedded

    return Embedded(_Path(config) if config else None, overrides)


def run(
    signature: str | _Mapping[str, _Any],
    inputs: _Mapping[str, _Any] | None = None,
    /,
    *,
    module: str = "predict",
    model: str | None = None,
    **named: _Any,
) -> dict[str, _Any]:
    """Runs a signature once and returns its outputs by name: `run("question -> answer", question="...")`.

    Inputs may be given as a mapping as well, which inputs called `module` or `model` have to be. Reads
    `dspex.yaml` in the working directory for models; without one the simulator answers. Raises
    `dspex.kit.errors.DspexError` kinds, also for a run that failed.
    """
    from dspex.kit.errors import of_kind

    with open() as node:
        answer = node.run(signature, {**(inputs or {}), **named}, module=module, model=model)
    if (error := answer.get("error")) is not None:
        raise of_kind(error["kind"], error["message"], code=error["code"])
    outputs: dict[str, _Any] = answer["outputs"]
    return outputs
