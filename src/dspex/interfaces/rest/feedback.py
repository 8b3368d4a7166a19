"""/v1/executions/{id}/feedback: what people say of what ran."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.executions import execution_of
from dspex.interfaces.rest.forms import Label, Strict
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import dataset_documents as shown
from dspex.interfaces.shared import dataset_presenters as presenters
from dspex.interfaces.shared.services import Services

MOST_FIELDS = 200
Comment = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Score = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False, description="Higher is better.")]


class FeedbackForm(Strict):
    """One member at least. A correction has outputs as they should have been; the others are the execution's own."""

    score: Score | None = None
    label: Label | None = None
    correction: Annotated[dict[str, Any], Field(min_length=1, max_length=MOST_FIELDS)] | None = None
    comment: Comment | None = None


def feedback_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/executions/{execution_id}/feedback", tags=["feedback"])

    @router.post(
        "",
        status_code=201,
        response_model=shown.Feedback,
        dependencies=[needs("feedback:write", audit="feedback.give")],
    )
    async def give_feedback(caller: Caller, execution_id: str, body: FeedbackForm) -> Document:
        """Say how an execution did, or what it should have answered. A key with the role caller judges its own."""
        execution = await execution_of(services, caller, execution_id)
        given = await services.feedback.give(
            execution,
            score=body.score,
            label=body.label,
            correction=body.correction,
            comment=body.comment,
            key_id=caller.key_id,
        )
        return Document(presenters.feedback(given), 201)

    @router.get("", response_model=shown.FeedbackList, dependencies=[needs("executions:read")])
    async def list_feedback(caller: Caller, execution_id: str) -> Document:
        """All of an execution, oldest first: a hundred at the most."""
        found = await services.feedback.of(await execution_of(services, caller, execution_id))
        return Document({"data": [presenters.feedback(one) for one in found]})

    return router
