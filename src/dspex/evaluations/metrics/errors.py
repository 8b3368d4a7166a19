"""A metric that has no score for an example."""

from dspex.kit.errors import DspexError


class MetricFailed(DspexError):
    """The example has no score, for the reason that `code` and message give. That is never a score of 0."""

    kind = "internal"
    default_code = "metric_failed"
