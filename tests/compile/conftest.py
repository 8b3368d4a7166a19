"""These tests hold DSPex against DSPy itself, so here, and only here, dspy is imported."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

import dspy
from dspy.clients import execution

dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
# Nobody here asks what a call would cost, and DSPy goes through the prices of all models after each.
execution._price_result = lambda *_: None
