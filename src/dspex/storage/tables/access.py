"""API keys and what is spent of budgets."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, nanodollars, text

# A row each for all nodes together, and for each node that holds some of it or has booked lately.
budgets = sa.Table(
    "budgets",
    metadata,
    text("project"),
    text("scope"),
    text("name"),
    text("period"),
    nanodollars("limit"),
    nanodollars("spent"),
    nanodollars("held"),
    at("updated_at"),
    sa.PrimaryKeyConstraint("project", "scope", "name", "period", name="budgets_pkey"),
)

budget_holdings = sa.Table(
    "budget_holdings",
    metadata,
    text("project"),
    text("scope"),
    text("name"),
    text("period"),
    text("node"),
    nanodollars("spent"),
    nanodollars("held"),
    at("updated_at"),
    sa.PrimaryKeyConstraint("project", "scope", "name", "period", "node", name="budget_holdings_pkey"),
)

# Found by id alone when it is presented: nobody says which project it is of.
api_keys = sa.Table(
    "api_keys",
    metadata,
    text("project"),
    text("id"),
    text("name"),
    text("role"),
    json("scopes", null=True),
    text("digest"),
    at("created_at"),
    text("created_by"),
    at("expires_at", null=True),
    at("revoked_at", null=True),
    at("rotated_at", null=True),
    text("previous_digest", null=True),
    at("previous_until", null=True),
    at("last_used_at", null=True),
    json("rate_limit", null=True),
    json("budget", null=True),
    sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
    sa.Index("api_keys_created", "project", "created_at", "id"),
)
