import asyncio

import pytest

from dspex.kit.clock import SystemClock
from dspex.kit.errors import Conflict, Invalid, Missing
from dspex.providers.memory.signatures import MemorySignatures
from dspex.signatures.document import parse_signature
from dspex.signatures.lifecycle import digest
from dspex.signatures.service import SignatureService

QA = parse_signature("question -> answer")


@pytest.fixture
def service() -> SignatureService:
    return SignatureService(MemorySignatures(), SystemClock())


async def test_a_version_goes_from_draft_to_active_to_deprecated(service: SignatureService) -> None:
    created = await service.create("p", "qa", QA)
    assert (created.version, created.status, created.digest) == (1, "draft", digest(QA))
    assert (await service.activate("p", "qa", 1)).status == "active"
    assert (await service.deprecate("p", "qa", 1)).status == "deprecated"
    assert (await service.get("p", "qa")).status == "deprecated"


async def test_any_other_step_is_a_conflict_that_names_the_state(service: SignatureService) -> None:
    await service.create("p", "qa", QA)
    with pytest.raises(Conflict, match=r"is draft and can't become deprecated: it can only become active"):
        await service.deprecate("p", "qa", 1)
    await service.activate("p", "qa", 1)
    with pytest.raises(Conflict, match="is active and can't become active"):
        await service.activate("p", "qa", 1)
    await service.deprecate("p", "qa", 1)
    with pytest.raises(Conflict, match="create a new one") as caught:
        await service.activate("p", "qa", 1)
    assert caught.value.code == "signature_state"


async def test_creating_again_makes_the_next_version(service: SignatureService) -> None:
    await service.create("p", "qa", QA)
    second = await service.create("p", "qa", parse_signature("question -> answer: int"))
    assert second.version == 2
    assert await service.get("p", "qa") == second
    assert (await service.get("p", "qa", 1)).signature == QA


async def test_an_equal_signature_is_found_never_doubled(service: SignatureService) -> None:
    document = {"inputs": [{"name": "question"}], "outputs": [{"name": "answer"}]}
    made = await asyncio.gather(
        service.find_or_create("p", QA), service.find_or_create("p", parse_signature(document))
    )
    assert [new for _, new in made] == [True, False]
    assert made[0][0] == made[1][0]
    assert len((await service.list("p")).data) == 1


async def test_what_is_not_there_is_missing(service: SignatureService) -> None:
    await service.create("p", "qa", QA)
    for project, name, version in (("p", "other", None), ("p", "qa", 2), ("q", "qa", None)):
        with pytest.raises(Missing) as caught:
            await service.get(project, name, version)
        assert caught.value.code == "signature_not_found"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a" * 101, "é"])
async def test_a_name_must_fit_into_an_address(service: SignatureService, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        await service.create("p", name, QA)
    assert caught.value.code == "bad_name"


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_a_list_has_a_limit(service: SignatureService, limit: int) -> None:
    with pytest.raises(Invalid) as caught:
        await service.list("p", limit=limit)
    assert caught.value.code == "bad_limit"


def test_the_digest_tells_apart_what_python_takes_for_equal() -> None:
    texts = [
        "a -> b: Literal[1]",
        "a -> b: Literal[True]",
        "a -> b",
        "a -> b: str",
        "b -> a",
        "a, c -> b",
        "c, a -> b",
    ]
    assert len({digest(parse_signature(text)) for text in texts}) == len(texts)
