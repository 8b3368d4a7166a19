"""Programs of several steps: read, wired, checked, and how values flow through them."""
