"""What every interface is given: the services of one running node."""

from dataclasses import dataclass
from datetime import datetime

from dspex.configuration.settings import Settings
from dspex.executions.catalog import Catalog
from dspex.executions.predictions import Predictions
from dspex.executions.ports import ExecutionReader
from dspex.kit.clock import Clock
from dspex.programs.service import ProgramService


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    clock: Clock
    started_at: datetime
    catalog: Catalog
    predictions: Predictions
    executions: ExecutionReader
    programs: ProgramService
