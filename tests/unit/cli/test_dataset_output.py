"""What commands say of datasets."""

from dspex.interfaces.cli.dataset_output import deleted


def test_versions_that_show_rows_of_what_is_deleted_are_named() -> None:
    used = [
        {"program": "qa", "version": 2, "status": "deployed", "demos": 4},
        {"program": "triage", "version": 5, "status": "ready", "demos": 1},
    ]
    shown = "still shown in the prompts of qa version 2 (deployed), triage version 5 (ready)"
    assert deleted("rows", [1, 2], used) == f"deleted rows version 1, 2\n{shown}"
    assert deleted("rows", [1], []) == "deleted rows version 1"
