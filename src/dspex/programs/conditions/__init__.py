"""The expressions of `when`: small, total and bounded; see docs/pipelines.md."""
