"""When to try again, by the headers of an error answer."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.providers.language_models.openai_chat_errors import retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"RETRY-AFTER-MS": "1500"}, 1.5),
        ({"retry-after": "2", "retry-after-ms": "9"}, 2.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "1e300"}, 86_400.0),
        ({"retry-after-ms": "86400001"}, 86_400.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400.0),
        ({}, None),
    ],
)
def test_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_counts_from_now() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    seconds = retry_after({"Retry-After": format_datetime(later, usegmt=True)})
    assert seconds is not None
    assert 85 < seconds <= 90


@given(st.text(max_size=40))
def test_no_header_breaks_it(value: str) -> None:
    seconds = retry_after({"retry-after": value, "retry-after-ms": value})
    assert seconds is None or 0 <= seconds <= 86_400
