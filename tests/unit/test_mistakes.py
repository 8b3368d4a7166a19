"""What is said about members that a document does not have."""

from dspex.kit.mistakes import LOOKED_FOR, mistakes

SCHEMA = {"properties": {"name": {"anyOf": [{"$ref": "#/$defs/Name"}, {"type": "null"}]}}} | {
    "$defs": {"Name": {"properties": {"first": {}, "last": {}}}}
}


def unknown(*loc: str | int) -> dict[str, object]:
    return {"type": "extra_forbidden", "loc": loc, "msg": "Extra inputs are not permitted"}


def test_names_are_looked_for_where_they_are_and_past_the_branch_of_a_union() -> None:
    found = [unknown("name", "frist"), unknown("name", "Name", "frist"), unknown("frist"), unknown("nam")]
    meant = ["did you mean 'first'?", "did you mean 'first'?", "leave it out", "did you mean 'name'?"]
    assert mistakes(found, "member", lambda: SCHEMA) == [
        f"there is no such member here; {one}" for one in meant
    ]
    assert mistakes(found, "member") == ["there is no such member here; leave it out"] * 4


def test_only_the_first_names_are_looked_for() -> None:
    told = mistakes([unknown("nam")] * (LOOKED_FOR + 5), "member", lambda: SCHEMA)
    assert sum("did you mean" in one for one in told) == LOOKED_FOR
