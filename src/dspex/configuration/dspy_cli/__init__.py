"""Projects made for dspy-cli: their configuration file and their modules, as settings of ours."""
