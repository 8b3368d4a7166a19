"""Which reader is for which format."""

import importlib.util
from collections.abc import Iterator
from typing import BinaryIO

from dspex.datasets.columns import Record
from dspex.datasets.records import FileFormat
from dspex.kit.errors import Problem, Unavailable


class FileLoader:
    """A `datasets.ports.Loader`. A reader is loaded when the first file of its format comes."""

    def check(self, form: FileFormat) -> None:
        if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise Unavailable(
                "Parquet is read with pyarrow, which is not installed here. Its operator runs pip install "
                "'dspex[data]'; or send CSV or JSON lines.",
                code="data_extra_missing",
            )

    def records(self, file: BinaryIO, form: FileFormat, longest: int) -> Iterator[Record | Problem]:
        match form:
            case "jsonl":
                from dspex.providers.dataset_files.json_files import json_lines

                return json_lines(file, longest)
            case "json":
                from dspex.providers.dataset_files.json_files import json_array

                return json_array(file, longest)
            case "csv":
                from dspex.providers.dataset_files.csv_files import csv_records

                return csv_records(file, longest)
            case "parquet":
                from dspex.providers.dataset_files.parquet import parquet_records

                return parquet_records(file)
