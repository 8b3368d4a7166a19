"""What every program store promises."""

import asyncio

import pytest
from msgspec.structs import replace

from dspex.jobs import rules
from dspex.kit.errors import Conflict, Invalid, Missing
from dspex.kit.paging import encode_cursor
from dspex.programs.records import CompiledDocument, Deployment, Program, ProgramSettings, Version
from tests.contracts.conftest import Stores
from tests.making import NOON, minutes, optimization, program, version


async def added(stores: Stores, **changes: object) -> Program:
    one = program(**changes)
    await stores.programs.add(one)
    return one


async def ready(stores: Stores, of: Program, digest: str, **changes: object) -> Version:
    return await stores.programs.add_version(version(of, digest, status="ready", **changes))


def deployment(of: Version, minute: int = 0) -> Deployment:
    return Deployment(f"d{minute}", of.project, of.program_id, of.id, "deploy", NOON + minutes(minute))


async def test_a_program_comes_back_as_it_was_stored(stores: Stores) -> None:
    one = await added(
        stores,
        description="Antworten\x00",
        settings=ProgramSettings(2.5, "fail", "digest", "deployment"),
        archived_at=NOON,
    )
    assert await stores.programs.get("default", "qa") == one
    assert await stores.programs.get("other", "qa") is None


async def test_a_name_is_taken_once_in_each_project(stores: Stores) -> None:
    await added(stores)
    with pytest.raises(Conflict) as refused:
        await stores.programs.add(program())
    assert refused.value.code == "program_exists"
    await stores.programs.add(program(project="other"))


async def test_one_of_many_creators_wins(stores: Stores) -> None:
    outcomes = await asyncio.gather(
        *(stores.programs.add(program()) for _ in range(6)), return_exceptions=True
    )
    assert [type(one) for one in outcomes].count(Conflict) == 5


async def test_programs_are_listed_by_name_in_pages(stores: Stores) -> None:
    for name in ("b", "Z", "a", "c"):
        await added(stores, name=name, archived_at=NOON if name == "b" else None)
    first = await stores.programs.list("default", include_archived=True, limit=3, cursor=None)
    rest = await stores.programs.list("default", include_archived=True, limit=3, cursor=first.next_cursor)
    assert [one.name for one in (*first.data, *rest.data)] == ["Z", "a", "b", "c"]
    assert rest.next_cursor is None
    live = await stores.programs.list("default", include_archived=False, limit=9, cursor=None)
    assert [one.name for one in live.data] == ["Z", "a", "c"]
    with pytest.raises(Invalid, match="cursor"):
        await stores.programs.list("default", include_archived=True, limit=3, cursor=encode_cursor(3))


async def test_updating_changes_what_may_change(stores: Stores) -> None:
    one = await added(stores)
    changed = replace(
        one,
        description="new",
        settings=ProgramSettings(1.0),
        source="file",
        updated_at=NOON + minutes(1),
        archived_at=NOON,
    )
    await stores.programs.update(replace(changed, name="renamed", deployed_version_id="stray"))
    assert await stores.programs.get("default", "qa") == changed
    with pytest.raises(Missing):
        await stores.programs.update(program(name="unknown"))


async def test_versions_are_numbered_and_found(stores: Stores) -> None:
    one = await added(stores)
    first, second = [await stores.programs.add_version(version(one, digest)) for digest in ("d1", "d2")]
    assert (first.number, second.number) == (1, 2)
    assert await stores.programs.version("default", first.id) == first
    assert await stores.programs.version_by_number("default", one.id, 2) == second
    assert await stores.programs.version_by_digest("default", one.id, "d1") == first
    for nowhere in (0, 3, -1, 10**30):
        assert await stores.programs.version_by_number("default", one.id, nowhere) is None
    assert await stores.programs.version("other", first.id) is None


async def test_a_definition_keeps_the_order_of_its_keys(stores: Stores) -> None:
    stored = await stores.programs.add_version(version(await added(stores)))
    found = await stores.programs.version("default", stored.id)
    assert found is not None
    assert list(found.definition.signature) == ["outputs", "inputs"]
    assert list(found.definition.lm.options) == ["temperature", "max_tokens"]


async def test_the_same_digest_is_the_same_version(stores: Stores) -> None:
    one = await added(stores)
    many = await asyncio.gather(*(stores.programs.add_version(version(one, "d")) for _ in range(6)))
    assert len({version.id for version in many}) == 1
    numbers = await asyncio.gather(*(stores.programs.add_version(version(one, f"d{n}")) for n in range(6)))
    assert sorted(version.number for version in numbers) == [2, 3, 4, 5, 6, 7]


async def test_versions_are_listed_newest_first_in_pages(stores: Stores) -> None:
    one = await added(stores)
    for n in range(5):
        await stores.programs.add_version(version(one, f"d{n}"))
    first = await stores.programs.versions("default", one.id, limit=3, cursor=None)
    rest = await stores.programs.versions("default", one.id, limit=3, cursor=first.next_cursor)
    assert [version.number for version in (*first.data, *rest.data)] == [5, 4, 3, 2, 1]
    assert rest.next_cursor is None
    with pytest.raises(Invalid, match="cursor"):
        await stores.programs.versions("default", one.id, limit=3, cursor=encode_cursor("name"))


async def test_a_version_changes_only_from_the_expected_status(stores: Stores) -> None:
    stored = await stores.programs.add_version(version(await added(stores)))
    done = replace(
        stored,
        status="ready",
        executor="native",
        executor_reason="exact",
        compiled_digest="c",
    )
    await stores.programs.update_version(done, expected_status="draft")
    assert await stores.programs.version("default", stored.id) == done
    failed = replace(stored, status="error", error="broken\x00")
    with pytest.raises(Conflict) as refused:
        await stores.programs.update_version(failed, expected_status="draft")
    assert refused.value.code == "version_changed"
    assert await stores.programs.version("default", stored.id) == done


async def test_statuses_by_program(stores: Stores) -> None:
    one, other, bare = [await added(stores, name=name) for name in ("a", "b", "c")]
    await ready(stores, one, "d1")
    await stores.programs.add_version(version(one, "d2"))
    await ready(stores, other, "d1")
    found = await stores.programs.version_statuses("default", [one.id, other.id, bare.id])
    assert found == {one.id: {"ready", "draft"}, other.id: {"ready"}}
    assert await stores.programs.version_statuses("default", []) == {}


async def test_deploying_moves_everything_at_once(stores: Stores) -> None:
    one = await added(stores)
    plain = await ready(stores, one, "d1")
    tuned = await ready(stores, one, "d2", parent_id=plain.id)
    for minute, next_one in enumerate((plain, tuned, plain)):
        await stores.programs.deploy(one, next_one, deployment(next_one, minute))
    pointing = await stores.programs.get("default", "qa")
    assert pointing is not None
    assert (pointing.deployed_version_id, pointing.updated_at) == (plain.id, NOON + minutes(2))
    statuses = {
        version.number: version.status
        for version in (await stores.programs.versions("default", one.id, limit=9, cursor=None)).data
    }
    assert statuses == {1: "deployed", 2: "optimized"}
    history = await stores.programs.deployments("default", one.id)
    assert [entry.id for entry in history] == ["d2", "d1", "d0"]


async def test_the_whole_history_of_deployments_is_told(stores: Stores) -> None:
    one = await added(stores)
    both = [await ready(stores, one, "d1"), await ready(stores, one, "d2")]
    for minute in range(150):
        await stores.programs.deploy(one, both[minute % 2], deployment(both[minute % 2], minute))
    history = await stores.programs.deployments("default", one.id)
    assert [entry.id for entry in history] == [f"d{minute}" for minute in reversed(range(150))]


async def test_a_version_that_cannot_run_is_not_deployed(stores: Stores) -> None:
    one = await added(stores)
    running = await ready(stores, one, "d1")
    await stores.programs.deploy(one, running, deployment(running))
    draft = await stores.programs.add_version(version(one, "d2"))
    with pytest.raises(Conflict):
        await stores.programs.deploy(one, replace(draft, status="ready"), deployment(draft, 1))
    found = await stores.programs.version("default", running.id)
    assert found is not None and found.status == "deployed"
    assert len(await stores.programs.deployments("default", one.id)) == 1


async def test_a_program_that_was_archived_meanwhile_is_not_deployed(stores: Stores) -> None:
    one = await added(stores)
    first, second = await ready(stores, one, "d1"), await ready(stores, one, "d2")
    await stores.programs.deploy(one, first, deployment(first))
    gone = await stores.programs.get("default", "qa")
    assert gone is not None
    await stores.programs.update(replace(gone, archived_at=NOON))
    # Whoever read it before that does not know.
    with pytest.raises(Conflict) as refused:
        await stores.programs.deploy(one, second, deployment(second, 1))
    assert refused.value.code == "program_archived"
    found = await stores.programs.version("default", first.id)
    assert found is not None and found.status == "deployed"
    assert len(await stores.programs.deployments("default", one.id)) == 1
    with pytest.raises(Missing):
        await stores.programs.deploy(program(name="absent"), second, deployment(second, 2))


async def test_a_job_deploys_only_while_it_is_its_own(stores: Stores) -> None:
    one = await added(stores)
    first, second = await ready(stores, one, "d1"), await ready(stores, one, "d2")
    _, queued = optimization()
    began = rules.begun(queued, "n", NOON)
    await stores.jobs.add(began)
    await stores.programs.deploy(one, first, deployment(first), by=began)
    # Given to somebody else, asked to end, and no longer on record.
    taken = rules.begun(rules.lost(began, NOON), "m", NOON)
    assert await stores.jobs.change(began, taken)
    assert await stores.jobs.ask_cancel("default", began.id)
    for lost in (began, taken, replace(began, id="absent")):
        with pytest.raises(Conflict) as refused:
            await stores.programs.deploy(one, second, deployment(second, 1), by=lost)
        assert refused.value.code == "job_state"
    pointing = await stores.programs.get("default", "qa")
    assert pointing is not None and pointing.deployed_version_id == first.id
    assert len(await stores.programs.deployments("default", one.id)) == 1


async def test_deploying_at_once_leaves_one_deployed(stores: Stores) -> None:
    one = await added(stores)
    several = [await ready(stores, one, f"d{n}") for n in range(5)]
    await asyncio.gather(
        *(stores.programs.deploy(one, each, deployment(each, each.number)) for each in several)
    )
    found = (await stores.programs.versions("default", one.id, limit=9, cursor=None)).data
    deployed = [version.id for version in found if version.status == "deployed"]
    pointing = await stores.programs.get("default", "qa")
    assert pointing is not None and deployed == [pointing.deployed_version_id]


async def test_compiled_documents_keep_their_order_and_their_first_content(stores: Stores) -> None:
    compiled = CompiledDocument("d", "default", {"z": {"b": 1, "a": 2}, "m": []}, {"y": 1, "x": "\x00"}, NOON)
    await stores.programs.add_compiled(compiled)
    await stores.programs.add_compiled(replace(compiled, document={}))
    found = await stores.programs.compiled("default", "d")
    assert found == compiled
    assert (list(found.document), list(found.document["z"])) == (["z", "m"], ["b", "a"])
    assert list(found.saved_state) == ["y", "x"]
    assert await stores.programs.compiled("other", "d") is None
    assert await stores.programs.have_compiled("default", ["e", "d", "f"]) == {"d"}
    assert await stores.programs.have_compiled("default", []) == set()
    assert await stores.programs.have_compiled("other", ["d"]) == set()


async def test_what_answers_is_told_for_all_projects(stores: Stores) -> None:
    expected = {}
    for project in ("default", "other"):
        one = await added(stores, project=project)
        for minute in (1, 2):
            newest = await ready(stores, one, f"d{minute}")
            await stores.programs.deploy(one, newest, deployment(newest, minute))
        await ready(stores, one, "d3")
        expected[project] = ("qa", replace(newest, status="deployed"))
    bare = await added(stores, name="bare")
    await ready(stores, bare, "d1")
    gone = await added(stores, name="gone")
    last = await ready(stores, gone, "d1")
    await stores.programs.deploy(gone, last, replace(deployment(last), id="last"))
    await stores.programs.update(replace(gone, archived_at=NOON))
    found = await stores.programs.deployed()
    assert sorted(found, key=lambda one: one[1].project) == [expected["default"], expected["other"]]
