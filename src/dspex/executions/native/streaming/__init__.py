"""Output fields out of a reply that has not ended: what is told of a text is a beginning of what parsing will give.

These readers only ever run ahead. The values come from `native.parsing`, and whoever listens compares.
"""
