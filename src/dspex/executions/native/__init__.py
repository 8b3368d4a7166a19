"""Running a compiled program without DSPy: fill in the inputs, call the gateway, parse the reply.

Nothing here is a prompt text. Rendering of values and parsing of replies follow `dspy.adapters` 3.4 to
the letter; the differential tests hold them equal.
"""
