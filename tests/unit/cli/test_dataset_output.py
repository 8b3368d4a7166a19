"""What commands say of datasets."""

from dspex.interfaces.cli.dataset_output import shown_by
from dspex.programs.records import Showing


def test_versions_that_show_rows_of_what_is_deleted_are_named() -> None:
    used = [Showing("qa", 2, "deployed", 4), Showing("triage", 5, "ready", 1)]
    assert (
        shown_by(used) == "\nstill shown in the prompts of qa version 2 (deployed), triage version 5 (ready)"
    )
    assert shown_by([]) == ""
