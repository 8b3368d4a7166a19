"""Writes worker_pb2.py and worker_pb2_grpc.py from worker.proto: python -m dspex.providers.worker_protocol.generate"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def generate(into: Path) -> None:
    """Needs grpcio-tools, which only developers have."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    proto = HERE / "worker.proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"--python_out={into}",
            f"--pyi_out={into}",
            f"--grpc_python_out={into}",
            str(proto),
        ]
    )
    if status != 0:
        sys.exit(f"protoc ended with status {status}")


if __name__ == "__main__":
    generate(ROOT)
