"""Who may do what, and which keys are good."""

from datetime import timedelta
from typing import get_args

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR, Key, Principal, Role
from dspex.access.rules import (
    ROLES,
    SCOPES,
    check_acts_in,
    check_grant,
    check_key,
    check_project,
    check_scopes,
    may,
    only_executions_of,
    principal_of,
    rights,
)
from dspex.access.tokens import digest_of, key_id_in, new_key, new_key_id
from dspex.kit.errors import Forbidden, Invalid, Unauthenticated
from tests.making import NOON as START

NEW, OLD = "1" * 64, "2" * 64


def key(role: Role = "caller", **changes: object) -> Key:
    made = Key("abcdefghijkl", "default", "n", role, None, NEW, START, "cli")
    return replace(made, **changes)  # type: ignore[arg-type]


def holder(role: Role, *scopes: str, project: str = "default") -> Principal:
    return Principal(project, role, rights(role, scopes or None), "id")


def test_every_role_has_rights_and_no_role_but_admin_what_all_projects_share() -> None:
    assert set(ROLES) == set(get_args(Role))
    shared = {"config:read", "config:write", "metrics:read", "breakers:write", "keys:write"}
    for role in ("developer", "caller", "read-only"):
        assert ROLES[role] <= set(SCOPES)  # type: ignore[index]
        assert not ROLES[role] & shared  # type: ignore[index]
    assert all(may(holder("admin"), scope) for scope in SCOPES)
    assert not any(scope.endswith((":write", ":run", ":adhoc")) for scope in ROLES["read-only"])


@pytest.mark.parametrize(
    ("role", "scope", "expected"),
    [
        ("developer", "programs:adhoc", True),
        ("developer", "keys:write", False),
        ("caller", "programs:run", True),
        ("caller", "programs:adhoc", False),
        ("caller", "costs:read", False),
        ("read-only", "audit:read", True),
        ("read-only", "programs:run", False),
    ],
)
def test_roles(role: Role, scope: str, expected: bool) -> None:
    assert may(holder(role), scope) is expected


def test_scopes_narrow_a_role_and_never_widen_it() -> None:
    assert rights("developer", ["programs:run"]) == {"programs:run"}
    assert rights("caller", ["keys:write", "programs:run"]) == {"programs:run"}
    assert rights("admin", ["metrics:read"]) == {"metrics:read"}
    assert rights("admin", ["*"]) == {"*"}
    assert rights("caller", []) == frozenset()
    for role, wrong in (("caller", "keys:write"), ("admin", "no:such"), ("developer", "*"), ("caller", "")):
        with pytest.raises(Invalid) as refused:
            check_scopes(role, ["programs:run", wrong])  # type: ignore[arg-type]
        assert refused.value.code == "bad_scopes" and refused.value.problems[0].pointer == "/scopes"


@pytest.mark.parametrize(
    ("by", "role", "scopes"),
    [
        (holder("admin", "keys:write"), "caller", None),
        (holder("admin", "keys:write"), "admin", ["keys:write", "config:read"]),
        (holder("admin", "keys:write", "programs:run"), "admin", None),
        (holder("developer"), "admin", ["programs:run"]),
        (holder("developer"), "read-only", None),
        (holder("caller"), "developer", None),
        (holder("read-only"), "caller", ["programs:run"]),
    ],
)
def test_nobody_hands_out_more_than_they_have(by: Principal, role: Role, scopes: list[str] | None) -> None:
    with pytest.raises(Forbidden) as refused:
        check_grant(by, role, scopes)
    assert refused.value.code == "grant_too_wide"


def test_what_one_has_may_be_handed_out() -> None:
    check_grant(LOCAL_OPERATOR, "admin", None)
    check_grant(holder("admin"), "developer", None)
    check_grant(holder("admin", "keys:write", "programs:run"), "caller", ["programs:run"])
    check_grant(holder("admin", "metrics:read"), "admin", ["metrics:read"])
    check_grant(holder("developer"), "caller", None)


def test_only_admins_act_in_other_projects() -> None:
    check_acts_in(holder("developer"), "default")
    check_acts_in(holder("admin", "programs:run"), "other")
    with pytest.raises(Forbidden):
        check_acts_in(holder("developer"), "other")


def test_only_callers_are_kept_to_their_own_executions() -> None:
    assert only_executions_of(holder("caller")) == "id"
    assert [only_executions_of(holder(role)) for role in ("admin", "developer", "read-only")] == [None] * 3
    assert only_executions_of(LOCAL_OPERATOR) is None


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "a\n", "ä", "a/b", "a\x00"])
def test_names_that_no_project_has(name: str) -> None:
    with pytest.raises(Invalid):
        check_project(name)


@pytest.mark.parametrize(
    ("stored", "presented", "code"),
    [
        (None, NEW, "key_invalid"),
        (None, "0" * 64, "key_invalid"),
        (key(), OLD, "key_invalid"),
        (key(revoked_at=START, expires_at=START), OLD, "key_invalid"),
        (key(revoked_at=START), NEW, "key_revoked"),
        (key(revoked_at=START, expires_at=START), NEW, "key_revoked"),
        (key(expires_at=START), NEW, "key_expired"),
        (key(previous_digest=OLD, previous_until=START), OLD, "key_expired"),
        (key(previous_digest=OLD, previous_until=START + timedelta(1), revoked_at=START), OLD, "key_revoked"),
        (key(previous_digest=None), "0" * 64, "key_invalid"),
    ],
)
def test_keys_that_are_refused(stored: Key | None, presented: str, code: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        check_key(stored, presented, START)
    assert refused.value.code == code


def test_keys_that_are_good() -> None:
    later = START + timedelta(microseconds=1)
    check_key(key(), NEW, START)
    check_key(key(expires_at=later), NEW, START)
    check_key(key(previous_digest=OLD, previous_until=later), OLD, START)
    check_key(key(previous_digest=OLD, previous_until=START), NEW, START)


def test_an_unknown_key_and_a_wrong_secret_look_the_same() -> None:
    said = []
    for stored in (None, key()):
        with pytest.raises(Unauthenticated) as refused:
            check_key(stored, OLD, START)
        said.append((refused.value.code, refused.value.message))
    assert said[0] == said[1]


def test_a_key_says_its_id_and_never_repeats() -> None:
    ids = {new_key_id() for _ in range(1000)}
    keys = {new_key(one) for one in ids}
    assert len(ids) == len(keys) == 1000
    assert {key_id_in(one.encode()) for one in keys} == ids
    text = new_key("abcdefghijkl").encode()
    assert len(digest_of(text)) == 64 and digest_of(text) != digest_of(new_key("abcdefghijkl").encode())
    for wrong in (b"", text[:-1], text + b"a", text.upper(), b" " + text, b"dx_abcdefghijkl_", text + b"\n"):
        assert key_id_in(wrong) is None


def test_a_principal_has_what_its_key_has() -> None:
    assert principal_of(key("developer", project="p", scopes=("programs:run",))) == Principal(
        "p", "developer", frozenset({"programs:run"}), "abcdefghijkl", home="p"
    )
