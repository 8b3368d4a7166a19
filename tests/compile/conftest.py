"""These tests hold DSPex against DSPy itself, so here, and only here, dspy is imported."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

import dspy

dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
