"""The forms of what callers send about datasets."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from dspex.configuration.settings import PROGRAM_NAME
from dspex.datasets.service import MOST_SAMPLED
from dspex.interfaces.rest.forms import Instant, Label, Number, Paged, SignatureForm, Strict
from dspex.interfaces.rest.forms import Query as QueryForm

DatasetName = Annotated[str, Field(pattern=PROGRAM_NAME)]
Kind = Literal["training", "validation", "test", "custom"]
Description = Annotated[str, StringConstraints(max_length=2000)]
Metadata = Annotated[dict[Label, Any], Field(max_length=50)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
ColumnText = Annotated[
    str,
    StringConstraints(max_length=20_000),
    Field(description="Columns as `field`, `field:type` or `field:type=column`, separated by commas."),
]


class DatasetForm(Strict):
    """A dataset in one JSON document. Each row is {"inputs": {…}, "outputs": {…}, "metadata": {…}}."""

    name: DatasetName
    kind: Kind = "custom"
    description: Description | None = None
    metadata: Metadata = Field(default_factory=dict)
    rows: Annotated[list[Any], Field(min_length=1)]


class UploadQuery(QueryForm):
    """What of a file is said in the address. Without `inputs`, rows have the form that they have in a document."""

    name: DatasetName
    kind: Kind = "custom"
    description: Description | None = None
    inputs: ColumnText | None = None
    outputs: ColumnText | None = None


class FromExecutions(Strict):
    """Which executions of a program become rows, oldest first."""

    name: DatasetName
    program: Label
    kind: Kind = "custom"
    description: Description | None = None
    metadata: Metadata = Field(default_factory=dict)
    version: Number | None = None
    only: Literal["corrections", "feedback", "all"] = "feedback"
    since: Instant | None = None
    until: Instant | None = None
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    label: Label | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000


class DatasetList(Paged):
    kind: Kind | None = None


class WhichVersion(QueryForm):
    version: Number | None = None


class RowList(Paged):
    version: Number | None = None


class Validation(Strict):
    """Against the signature of a program, or one that is given."""

    program: Label | None = None
    program_version: Number | None = None
    signature: SignatureForm | None = None
    version: Number | None = None
    after: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.program is None) == (self.signature is None):
            raise PydanticCustomError("which_signature", "give a `program` or a `signature`")
        return self


class Sampling(Strict):
    count: Annotated[int, Field(ge=1, le=MOST_SAMPLED)] = 10
    seed: Seed = 0
    version: Number | None = None


class Splitting(Strict):
    """`ratios` has the share of each part, such as {"training": 0.8, "test": 0.2}."""

    ratios: Annotated[dict[DatasetName, float], Field(min_length=2, max_length=20)]
    seed: Seed = 0
    version: Number | None = None
