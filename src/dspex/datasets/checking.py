"""Rows held against a signature."""

from collections.abc import Sequence

from msgspec.structs import replace

from dspex.datasets.records import BadRow, Row, Verdict
from dspex.kit.errors import Invalid, Problem
from dspex.signatures.records import Signature
from dspex.signatures.validation import InputValidator, OutputChecker


class Checker:
    """Built once for a signature. One without outputs, such as a module's of one's own, takes any."""

    def __init__(self, signature: Signature) -> None:
        self._inputs = InputValidator(signature)
        self._outputs = OutputChecker(signature) if signature.outputs else None

    def problems(self, row: Row) -> tuple[Problem, ...]:
        """Everything that does not fit. Outputs are looked at when the row has any."""
        found: tuple[Problem, ...] = ()
        try:
            self._inputs.validate(row.inputs)
        except Invalid as error:
            found = error.problems
        if self._outputs is None or not row.outputs:
            return found
        try:
            self._outputs.validate(row.outputs)
        except Invalid as error:
            found += error.problems
        return found


def check_rows(checker: Checker, rows: Sequence[Row], before: Verdict, limit: int) -> Verdict:
    """The verdict with these rows added, of which the bad ones are listed until there are `limit`."""
    bad, bad_rows, following = list(before.bad), before.bad_rows, before.next_position
    for row in rows:
        problems = checker.problems(row)
        if not problems:
            continue
        bad_rows += 1
        if len(bad) < limit:
            bad.append(BadRow(row.position, row.id, problems))
        elif following is None:
            # What lies behind the last one that is listed.
            following = bad[-1].position
    return replace(
        before,
        checked=before.checked + len(rows),
        bad_rows=bad_rows,
        unlabelled=before.unlabelled + sum(not row.outputs for row in rows),
        bad=bad,
        next_position=following,
    )
