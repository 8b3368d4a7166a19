"""Where `program_of_thought` runs what a model writes: DSPy's sandbox, Python within Deno."""

import dspy
from dspy.primitives.code_interpreter import CodeInterpreterError
from dspy.primitives.python_interpreter import _find_deno_executable, _validate_deno_version

from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.engines import inspecting


def check_sandbox() -> None:
    """Raises Invalid (code no_sandbox) without a Deno that DSPy takes; when a program is inspected also when its Python
    does not start in it, so that this is not found out by the first request.
    """
    try:
        _validate_deno_version(_find_deno_executable())
    except CodeInterpreterError as error:
        raise Invalid(
            "program_of_thought runs what the model writes in a sandbox of Deno 2, which is not installed here: "
            f"`pip install 'dspy[deno]'`. ({error})",
            code="no_sandbox",
        ) from None
    if not inspecting():
        return
    sandbox = dspy.PythonInterpreter()
    try:
        sandbox.start()
    except CodeInterpreterError as error:
        # DSPy has Deno's words when it sees it end before it reads them; it has ended now in any case.
        process = sandbox.deno_process
        words = "" if process is None or process.stderr is None else process.stderr.read()
        said = f"{error} {words}".strip()[:2000]
        raise Invalid(
            f"The sandbox of program_of_thought does not start: {said}. Deno fetches its Python "
            "from the network the first time: give the pool a `DENO_DIR` that stays, and `pass_environment` for a "
            "proxy.",
            code="no_sandbox",
        ) from None
    finally:
        sandbox.shutdown()
