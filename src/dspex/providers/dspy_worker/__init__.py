"""The only package that imports dspy, and only in processes of its own.

`python -m dspex.providers.dspy_worker` compiles definitions and exits; the server talks to it through
`dspex.providers.compiler`.
"""
