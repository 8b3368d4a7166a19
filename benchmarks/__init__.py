"""What a request costs, measured against DSPy's own server and against the least a Python server can do."""
