"""All settings, typed, loaded once at start.

What wins, first to last: command line, environment (`DSPEX_` and nested by `__`, DATABASE_URL), `.env`,
`dspex.yaml`, the defaults below.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.kit.addresses import without_secrets

SIMULATED = ModelRegistry(
    default="simulator", registry={"simulator": ModelSettings(model="simulator/default")}
)
PROGRAM_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ProgramName = Annotated[str, Field(pattern=PROGRAM_NAME)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """Where and how to listen. `drain_s` is how long SIGTERM waits for requests in flight.

    `allow_unauthenticated` accepts an address that is not loopback while no keys are asked for.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    compression: bool = False
    allow_unauthenticated: bool = False


class Limits(_Section):
    """What a caller may send and get. Sizes are bytes of JSON."""

    body_bytes: Annotated[int, Field(ge=1024)] = 2 * 1024 * 1024
    input_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    output_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    in_flight: Annotated[int, Field(ge=1)] = 1000


class Retention(_Section):
    """How long executions are kept; None keeps them for ever."""

    days: Annotated[float, Field(gt=0)] | None = 30.0
    rows: Annotated[int, Field(ge=1)] | None = None


class Storage(_Section):
    """`durability`: relaxed acknowledges before the commit, normal survives a killed process, full a power loss."""

    durability: Literal["relaxed", "normal", "full"] = "normal"


class ProgramEntry(_Section):
    """One program of the file. `state` names a JSON file that DSPy saved, relative to the configuration file."""

    name: ProgramName
    signature: str | dict[str, Any]
    module: Literal["predict", "chain_of_thought"] = "predict"
    description: str | None = None
    model: str | None = None
    adapter: Literal["chat", "json"] = "chat"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    state: str | None = None
    executor: Literal["auto", "native", "mock"] = "auto"
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    on_violation: Literal["report", "fail"] = "report"
    mock: dict[str, Any] | None = None


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
    data_dir: Path = Path(".dspex")
    server: Server = Server()
    limits: Limits = Limits()
    retention: Retention = Retention()
    storage: Storage = Storage()
    models: ModelRegistry = SIMULATED
    programs: tuple[ProgramEntry, ...] = ()
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
    def simulated(self) -> bool:
        """Whether answers of the default model are made up by the simulator."""
        return self.models.registry[self.models.default].model.startswith("simulator/")
