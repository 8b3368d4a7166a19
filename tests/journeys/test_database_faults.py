"""The database fails while the node serves: a clear answer, nothing acknowledged that is not stored, recovery."""

import resource
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.conftest_simulator import RunningSimulator
from tests.plugins.proxy import proxy_to
from tests.plugins.service import Service, config, running_service


def until_answered(service: Service, seconds: float = 15) -> httpx.Response:
    """Asks again until it is not `unavailable` any more."""
    deadline = time.monotonic() + seconds
    while True:
        answer = service.predict("qa", {"question": "Again?"}, use_cache=False)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


def test_a_full_disk(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        kept = service.predict("qa", {"question": "Which?"}).json()["id"]
        unlimited = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
        # The kernel refuses every file that would grow past this, as a full disk does.
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (8192, unlimited[1]))
        refused = []
        for number in range(20):
            answer = service.predict("qa", {"question": f"{number} " + "x" * 20_000})
            refused.append(answer.status_code)
            if answer.status_code != 200:
                assert answer.json()["code"] == "database_unavailable", answer.text
                assert "retry-after" in answer.headers
        assert set(refused) <= {200, 503}
        assert 503 in refused
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert until_answered(service).status_code == 200
        assert client.get(f"/v1/executions/{kept}").status_code == 200
        listed = client.get("/v1/executions", params={"limit": 100}).json()["data"]
        assert len(listed) >= refused.count(200) + 2
        assert all(one["status"] == "completed" for one in listed)


def test_postgresql_goes_away_and_comes_back(
    tmp_path: Path, simulator: RunningSimulator, postgresql_url: str
) -> None:
    parts = urlsplit(postgresql_url)
    with proxy_to(parts.hostname or "", parts.port or 5432) as proxy:
        url = parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl()
        environment = {"DATABASE_URL": url}
        with running_service(tmp_path, config(simulator.base_url), environment=environment) as service:
            answered = [service.predict("qa", {"question": "Which?"}).json()["id"]]
            proxy.cut()
            refused = service.predict("qa", {"question": "And now?"})
            assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
            assert "retry-after" in refused.headers
            with service.client() as client:
                assert client.get("/health").status_code == 200
                ready = client.get("/ready")
                assert ready.status_code == 503
                assert "database" in ready.text
            proxy.mend()
            again = until_answered(service)
            assert again.status_code == 200
            answered.append(again.json()["id"])
            with service.client() as client:
                assert client.get("/ready").status_code == 200
                for execution_id in answered:
                    assert client.get(f"/v1/executions/{execution_id}").status_code == 200


def test_a_database_that_is_not_there_at_start(tmp_path: Path, simulator: RunningSimulator) -> None:
    environment = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    with running_service(
        tmp_path, config(simulator.base_url), environment=environment, ready=False
    ) as service:
        assert service.process.wait(timeout=60) > 0
        assert "database" in service.log.lower()
        assert "Traceback" not in service.log
