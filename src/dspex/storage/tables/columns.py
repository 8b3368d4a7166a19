"""Columns as every table has them."""

import sqlalchemy as sa

from dspex.storage.types import ExactText, Instant

metadata = sa.MetaData()


def text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, ExactText, nullable=null)


def json(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=null)


def at(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, Instant, nullable=null)


def number(name: str, *, null: bool = False) -> "sa.Column[float]":
    return sa.Column(name, sa.Double, nullable=null)


def nanodollars(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False)
