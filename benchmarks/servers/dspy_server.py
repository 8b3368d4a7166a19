"""What one would write by hand: FastAPI, typed bodies, `dspy.Predict(...).acall`. History is off.

Caches are off as well, but for /cached, which has DSPy's own in memory.

python -m benchmarks.servers.dspy_server PORT LM_PORT
"""

import sys
from typing import Literal

import dspy
import uvicorn
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine
from dspy.lm15 import RouterConfig
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.cases import SLOW_CALLERS, SLOW_MS


class Question(BaseModel):
    question: str


class Answer(BaseModel):
    answer: str


class Message(BaseModel):
    message: str
    product: str
    history: list[str]


class Sorted(BaseModel):
    team: Literal["billing", "technical", "sales", "other"]
    urgent: bool
    score: float
    tags: list[str]


class Triage(dspy.Signature):  # type: ignore[misc]
    """Sort a customer's message so that the right team sees it first."""

    message: str = dspy.InputField(desc="what the customer wrote")
    product: str = dspy.InputField()
    history: list[str] = dspy.InputField(desc="what happened before")
    team: Literal["billing", "technical", "sales", "other"] = dspy.OutputField()
    urgent: bool = dspy.OutputField()
    score: float = dspy.OutputField()
    tags: list[str] = dspy.OutputField()


def tuned_model(url: str) -> dspy.LM:
    """Given engine objects, with a connection for every caller: of the default of 100 most had to wait.

    DSPy then looks up neither engine nor capabilities of the model for each call, the latter in a thread.
    """
    config = RouterConfig(
        api_keys={"openai-chat": "benchmark"}, base_urls={"openai-chat": url}, max_connections=SLOW_CALLERS
    )
    engines = {"engine": LM15Engine(config), "async_engine": AsyncLM15Engine(config)}
    return dspy.LM("openai/benchmark", cache=False, temperature=0.0, max_tokens=1000, **engines)


def create_app(lm_port: int) -> FastAPI:
    url = f"http://127.0.0.1:{lm_port}"
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    lm, caching = (
        dspy.LM(
            "openai/benchmark",
            api_base=f"{url}/v1",
            api_key="benchmark",
            cache=cache,
            temperature=0.0,
            max_tokens=1000,
        )
        for cache in (False, True)
    )
    dspy.configure(lm=lm, disable_history=True)
    answer, slow, tuned, cached = (dspy.Predict("question -> answer") for _ in range(4))
    triage = dspy.Predict(Triage)
    slow.lm = tuned_model(f"{url}/delay/{SLOW_MS}/v1")
    tuned.lm = tuned_model(f"{url}/v1")
    cached.lm = caching
    app = FastAPI()

    @app.post("/answer")
    async def answer_question(body: Question) -> Answer:
        return Answer(answer=(await answer.acall(question=body.question)).answer)

    @app.post("/triage")
    async def sort_message(body: Message) -> Sorted:
        outcome = await triage.acall(message=body.message, product=body.product, history=body.history)
        return Sorted(team=outcome.team, urgent=outcome.urgent, score=outcome.score, tags=outcome.tags)

    @app.post("/slow")
    async def answer_slowly(body: Question) -> Answer:
        return Answer(answer=(await slow.acall(question=body.question)).answer)

    @app.post("/tuned")
    async def answer_tuned(body: Question) -> Answer:
        return Answer(answer=(await tuned.acall(question=body.question)).answer)

    @app.post("/cached")
    async def answer_again(body: Question) -> Answer:
        return Answer(answer=(await cached.acall(question=body.question)).answer)

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=False,
        log_level="warning",
    )
