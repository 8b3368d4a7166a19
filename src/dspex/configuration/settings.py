"""All settings, typed, loaded once at start.

What wins, first to last: command line, environment (`DSPEX_` and nested by `__`, DATABASE_URL), `.env`,
`dspex.yaml`, the defaults below.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dspex.configuration.access import Access
from dspex.configuration.alerting import AlertSettings, AlertThresholds
from dspex.configuration.caching import CachePolicy, CacheSettings
from dspex.configuration.dspy_cli.project import DspyCli
from dspex.configuration.gates import Gates
from dspex.configuration.jobs import JobSettings
from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.observing import MetricsSettings, TelemetrySettings
from dspex.configuration.pipelines import PipelineEntry, kind_complaint
from dspex.configuration.pools import PoolName, PoolSettings
from dspex.configuration.spending import Budget, RateLimit
from dspex.kit.addresses import LOOPBACK, without_secrets

SIMULATED = ModelRegistry(
    default="simulator", registry={"simulator": ModelSettings(model="simulator/default")}
)
PROGRAM_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
# A kind, or "package.module:Class".
MODULE = r"^([a-z_]{1,64}|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$"
ProgramName = Annotated[str, Field(pattern=PROGRAM_NAME)]


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class Server(_Section):
    """Where and how to listen. `drain_s` is how long SIGTERM waits for requests in flight, `stream_grace_s` how long

    a stream without a reader goes on for one that comes back.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    stream_grace_s: Annotated[float, Field(ge=0, le=300)] = 3.0
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    compression: bool = False


class Limits(_Section):
    """What a caller may send and get. Sizes are bytes of JSON; `dataset_bytes` those of a file as it is sent."""

    body_bytes: Annotated[int, Field(ge=1024)] = 2 * 1024 * 1024
    input_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    output_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    in_flight: Annotated[int, Field(ge=1)] = 1000
    dataset_rows: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    dataset_bytes: Annotated[int, Field(ge=1024)] = 2 * 1024 * 1024 * 1024
    dataset_row_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024


class Retention(_Section):
    """How long executions and the audit log are kept; None keeps them for ever."""

    days: Annotated[float, Field(gt=0)] | None = 30.0
    rows: Annotated[int, Field(ge=1)] | None = None
    audit_days: Annotated[float, Field(gt=0)] | None = 365.0


class Storage(_Section):
    """`durability`: relaxed acknowledges before the commit, normal survives a killed process, full a power loss."""

    durability: Literal["relaxed", "normal", "full"] = "normal"


class RateLimits(_Section):
    """Limits of everybody: of each session, and of each key that has none of its own."""

    session: RateLimit = RateLimit()
    key: RateLimit = RateLimit()


class ProgramEntry(_Section):
    """One program of the file: a signature with its module, or a pipeline of several.

    `module` is a kind, or "package.module:Class" for a dspy.Module of one's own, which may go without a signature;
    `config` are the options of either. `state` names a JSON file that DSPy saved, relative to the configuration file.
    """

    name: ProgramName
    module: Annotated[str, Field(pattern=MODULE)] = "predict"
    pipeline: PipelineEntry | None = None
    # After the two, because it depends on them; looked at even where another member is wrong.
    signature: str | dict[str, Any] | None = Field(default=None, validate_default=True)
    config: dict[str, Any] = Field(default_factory=dict)
    description: str | None = None
    model: str | None = None
    adapter: Literal["chat", "json", "xml", "two_step"] = "chat"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    state: str | None = None
    executor: Literal["auto", "native", "pool", "mock"] = "auto"
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    on_violation: Literal["report", "fail"] = "report"
    mock: dict[str, Any] | None = None
    cache: CachePolicy | None = None
    rate_limit: RateLimit | None = None
    budget: Budget | None = None
    gates: Gates | None = None
    alerts: AlertThresholds | None = None

    @field_validator("signature")
    @classmethod
    def _one_kind(cls, signature: Any, info: ValidationInfo) -> Any:
        known = info.data
        if "module" not in known or "pipeline" not in known:
            # What is wrong with those is told already.
            return signature
        if complaint := kind_complaint(signature, known["pipeline"], known["module"]):
            raise PydanticCustomError("program_kind", complaint)
        return signature


class DatasetEntry(_Section):
    """One dataset of the file: `path` of a file of rows, relative to the configuration file.

    `inputs` and `outputs` name columns, as `datasets.columns` reads them.
    """

    name: ProgramName
    path: str
    kind: Literal["training", "validation", "test", "custom"] = "custom"
    description: str | None = None
    inputs: str | None = None
    outputs: str | None = None


class Settings(BaseSettings):
    """Everything a node needs to know. Holds no secret: models name the variable of their key."""

    model_config = SettingsConfigDict(
        env_prefix="DSPEX_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    database_url: str | None = None
    redis_url: str | None = None
    redis_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "dspex"
    data_dir: Path = Path(".dspex")
    server: Server = Server()
    limits: Limits = Limits()
    retention: Retention = Retention()
    storage: Storage = Storage()
    access: Access = Access()
    cache: CacheSettings = CacheSettings()
    rate_limits: RateLimits = RateLimits()
    metrics: MetricsSettings = MetricsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    alerts: AlertSettings = AlertSettings()
    jobs: JobSettings = JobSettings()
    models: ModelRegistry = SIMULATED
    programs: tuple[ProgramEntry, ...] = ()
    datasets: tuple[DatasetEntry, ...] = ()
    code_paths: tuple[Path, ...] = (Path("."), Path("src"))
    dspy_cli: DspyCli | None = None
    pools: dict[PoolName, PoolSettings] = Field(default_factory=dict)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @property
    def database(self) -> str:
        """The database's URL; a SQLite file in the data directory when none is set."""
        return self.database_url or f"sqlite:///{self.data_dir / 'dspex.db'}"

    @property
    def database_without_secrets(self) -> str:
        """The database's URL with its password and its query masked."""
        return without_secrets(self.database)

    @property
    def code_roots(self) -> tuple[Path, ...]:
        """The directories that references to Python code start from: those of `code_paths` that exist."""
        return tuple(path.resolve() for path in self.code_paths if path.is_dir())

    @property
    def asks_for_keys(self) -> bool:
        """Whether a request without a key is refused."""
        return self.access.mode == "required" or (
            self.access.mode == "auto" and self.server.host not in LOOPBACK
        )

    @property
    def simulated(self) -> bool:
        """Whether answers of the default model are made up by the simulator."""
        return self.models.registry[self.models.default].model.startswith("simulator/")
