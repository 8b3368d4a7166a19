"""`dspex` and `python -m dspex`."""

import gc
import os
import sys


def main() -> None:
    if {"serve", "work"} & set(sys.argv[1:]):
        _hide()
    # Nothing that importing makes is garbage, nor is it later: the collector need not look at it.
    gc.disable()
    # Looking for some opens the metadata of every package that is installed. There is none that DSPex wants.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # gRPC writes lines of its own into the log whenever a process is forked.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    _import_structlog()
    from dspex.application.commands import application
    from dspex.interfaces.cli.app import build

    command = build(application(), sys.argv[1:])
    gc.freeze()
    gc.enable()
    command()


def _hide() -> None:
    """At once: what is in the environment of a node can be read by others of its user until it hides itself."""
    from dspex.application.hardening import forbid_inspection

    forbid_inspection()


def _import_structlog() -> None:
    """Without rich: structlog takes a tenth of a start to import it, for tracebacks that are never printed.

    Only here, where the process is ours: what embeds DSPex may want structlog with all it can do.
    """
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


if __name__ == "__main__":
    main()
