"""The published protocol and what is generated from it are one."""

from pathlib import Path

from dspex.providers.worker_protocol.generate import HERE, ROOT, generate


def test_the_generated_files_are_those_of_the_protocol(tmp_path: Path) -> None:
    generate(tmp_path)
    made = {path.name: path.read_text() for path in (tmp_path / HERE.relative_to(ROOT)).iterdir()}
    assert made.keys() == {"worker_pb2.py", "worker_pb2.pyi", "worker_pb2_grpc.py"}
    for name, text in made.items():
        assert (HERE / name).read_text() == text, (
            f"{name} is old: python -m dspex.providers.worker_protocol.generate"
        )
