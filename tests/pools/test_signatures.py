"""Signatures from Python, read in real workers: as documents that are exact, or refused by the field."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dspex.programs.ports import Refused
from dspex.signatures.document import parse_signature, signature_to_document
from tests.plugins.pools import TestedPools, open_pools

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools() -> AsyncIterator[TestedPools]:
    async with open_pools(workers=1) as opened:
        yield opened


async def test_a_class_is_read_with_all_that_it_says(pools: TestedPools) -> None:
    order, plain = await pools.pools.signatures(["shop.signatures:Order", "shop.signatures:Plain"])
    assert not isinstance(order, Refused), order
    assert order["instructions"] == "Read an order."
    assert order["inputs"] == [
        {"name": "text", "type": "str", "description": "as received", "min_length": 1},
        {"name": "day", "type": "date | None"},
        {"name": "limit", "type": "int", "default": 10, "ge": 1, "le": 100},
        {"name": "anything", "type": "Any"},
        {"name": "language", "type": "Literal['en', 'de']", "default": "en"},
    ]
    lines, *others = order["outputs"]
    assert lines["type"]["items"]["fields"] == [
        {"name": "sku", "type": "str", "description": "as printed"},
        {"name": "count", "type": "int", "required": False, "default": 1, "ge": 1},
        {"name": "note", "type": "str | None", "required": False},
    ]
    assert others == [
        {"name": "totals", "type": "dict[str, float]"},
        {"name": "sure", "type": "float", "ge": 0, "le": 1},
        {"name": "comment", "type": "str | None"},
    ]
    assert signature_to_document(parse_signature(order)) == order
    assert plain == {
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [{"name": "answer", "type": "str"}],
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Tupled", r"tuple\[int, str\]"),
        ("Several", r"set\[str\]"),
        ("Bytes", "bytes"),
        ("Exact", "Decimal"),
        ("Bare", r"list, .*write list\[Any\]"),
        ("BareDict", r"write dict\[str, Any\]"),
        ("Enumerated", "Color"),
        ("Forbidding", "Strict"),
        ("Validated", "Checked has validators"),
        ("Inner", r"Listing\.names: write list\[Any\]"),
        ("Itself", "Tree"),
        ("Pictured", "Image"),
    ],
)
async def test_what_has_no_exact_place_is_refused_by_its_field(
    pools: TestedPools, name: str, reason: str
) -> None:
    (found,) = await pools.pools.signatures([f"shop.signatures:{name}"])
    assert isinstance(found, Refused), found
    assert "'odd'" in found.reason
    assert re.search(reason, found.reason), found.reason


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("shop.signatures:Line", "is no dspy.Signature class"),
        ("shop.signatures:Absent", "has no 'Absent'"),
        ("shop.absent:Order", "there is no module 'shop.absent'"),
        ("shop.faults:Raising", "is no dspy.Signature class"),
        ("json:loads", "is the name of an installed library"),
    ],
)
async def test_what_is_no_signature_is_refused(pools: TestedPools, reference: str, reason: str) -> None:
    (found,) = await pools.pools.signatures([reference])
    assert isinstance(found, Refused)
    assert reason in found.reason
