"""The names by which a project's modules are found are DSPy's."""

import dspy

from dspex.configuration.dspy_cli.modules import DSPY_MODULES


def test_every_public_module_class_is_known_by_its_name() -> None:
    public = {name: getattr(dspy, name) for name in dir(dspy)}
    found = {name for name, one in public.items() if isinstance(one, type) and issubclass(one, dspy.Module)}
    assert found == DSPY_MODULES
