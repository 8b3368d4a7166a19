from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GreetRequest(_message.Message):
    __slots__ = ("protocol", "nonce")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    nonce: bytes
    def __init__(self, protocol: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class GreetReply(_message.Message):
    __slots__ = ("protocol", "proof", "pid", "dspy_version")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DSPY_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    proof: bytes
    pid: int
    dspy_version: str
    def __init__(self, protocol: _Optional[int] = ..., proof: _Optional[bytes] = ..., pid: _Optional[int] = ..., dspy_version: _Optional[str] = ...) -> None: ...

class Program(_message.Message):
    __slots__ = ("digest", "definition_json")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    digest: str
    definition_json: bytes
    def __init__(self, digest: _Optional[str] = ..., definition_json: _Optional[bytes] = ...) -> None: ...

class ToWorker(_message.Message):
    __slots__ = ("start", "answer", "optimization", "rows")
    START_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZATION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    start: Start
    answer: ModelAnswer
    optimization: Optimization
    rows: Rows
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., answer: _Optional[_Union[ModelAnswer, _Mapping]] = ..., optimization: _Optional[_Union[Optimization, _Mapping]] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("execution_id", "request_id", "program", "inputs_json", "parameters_json", "traceparent", "stream", "output_bytes")
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    execution_id: str
    request_id: str
    program: Program
    inputs_json: bytes
    parameters_json: bytes
    traceparent: str
    stream: bool
    output_bytes: int
    def __init__(self, execution_id: _Optional[str] = ..., request_id: _Optional[str] = ..., program: _Optional[_Union[Program, _Mapping]] = ..., inputs_json: _Optional[bytes] = ..., parameters_json: _Optional[bytes] = ..., traceparent: _Optional[str] = ..., stream: _Optional[bool] = ..., output_bytes: _Optional[int] = ...) -> None: ...

class FromWorker(_message.Message):
    __slots__ = ("call", "event", "log", "finished", "failed", "optimized")
    CALL_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZED_FIELD_NUMBER: _ClassVar[int]
    call: ModelCall
    event: Event
    log: LogLine
    finished: Finished
    failed: Failed
    optimized: Optimized
    def __init__(self, call: _Optional[_Union[ModelCall, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ..., log: _Optional[_Union[LogLine, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., optimized: _Optional[_Union[Optimized, _Mapping]] = ...) -> None: ...

class ModelCall(_message.Message):
    __slots__ = ("id", "kind", "request_json", "stream")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COMPLETION: _ClassVar[ModelCall.Kind]
        EMBEDDING: _ClassVar[ModelCall.Kind]
        FINE_TUNING: _ClassVar[ModelCall.Kind]
    COMPLETION: ModelCall.Kind
    EMBEDDING: ModelCall.Kind
    FINE_TUNING: ModelCall.Kind
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REQUEST_JSON_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    id: int
    kind: ModelCall.Kind
    request_json: bytes
    stream: bool
    def __init__(self, id: _Optional[int] = ..., kind: _Optional[_Union[ModelCall.Kind, str]] = ..., request_json: _Optional[bytes] = ..., stream: _Optional[bool] = ...) -> None: ...

class ModelAnswer(_message.Message):
    __slots__ = ("id", "reply_json", "error_json", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_JSON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    id: int
    reply_json: bytes
    error_json: bytes
    text: str
    def __init__(self, id: _Optional[int] = ..., reply_json: _Optional[bytes] = ..., error_json: _Optional[bytes] = ..., text: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_json",)
    EVENT_JSON_FIELD_NUMBER: _ClassVar[int]
    event_json: bytes
    def __init__(self, event_json: _Optional[bytes] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("level", "text")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    level: str
    text: str
    def __init__(self, level: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("outputs_json", "violations_json")
    OUTPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    outputs_json: bytes
    violations_json: bytes
    def __init__(self, outputs_json: _Optional[bytes] = ..., violations_json: _Optional[bytes] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("kind", "code", "type", "message", "call")
    KIND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    code: str
    type: str
    message: str
    call: int
    def __init__(self, kind: _Optional[str] = ..., code: _Optional[str] = ..., type: _Optional[str] = ..., message: _Optional[str] = ..., call: _Optional[int] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("program",)
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    program: Program
    def __init__(self, program: _Optional[_Union[Program, _Mapping]] = ...) -> None: ...

class InspectReply(_message.Message):
    __slots__ = ("document_json", "saved_state_json", "refused")
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    SAVED_STATE_JSON_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    document_json: bytes
    saved_state_json: bytes
    refused: str
    def __init__(self, document_json: _Optional[bytes] = ..., saved_state_json: _Optional[bytes] = ..., refused: _Optional[str] = ...) -> None: ...

class SignatureRequest(_message.Message):
    __slots__ = ("reference",)
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    reference: str
    def __init__(self, reference: _Optional[str] = ...) -> None: ...

class SignatureReply(_message.Message):
    __slots__ = ("document_json", "refused")
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    document_json: bytes
    refused: str
    def __init__(self, document_json: _Optional[bytes] = ..., refused: _Optional[str] = ...) -> None: ...

class Optimization(_message.Message):
    __slots__ = ("optimization_id", "program", "optimizer", "config_json", "metric_json", "models_json", "seed", "threads", "train_rows", "validation_rows", "output_bytes", "fine_tunes")
    OPTIMIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    METRIC_JSON_FIELD_NUMBER: _ClassVar[int]
    MODELS_JSON_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_ROWS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ROWS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FINE_TUNES_FIELD_NUMBER: _ClassVar[int]
    optimization_id: str
    program: Program
    optimizer: str
    config_json: bytes
    metric_json: bytes
    models_json: bytes
    seed: int
    threads: int
    train_rows: int
    validation_rows: int
    output_bytes: int
    fine_tunes: bool
    def __init__(self, optimization_id: _Optional[str] = ..., program: _Optional[_Union[Program, _Mapping]] = ..., optimizer: _Optional[str] = ..., config_json: _Optional[bytes] = ..., metric_json: _Optional[bytes] = ..., models_json: _Optional[bytes] = ..., seed: _Optional[int] = ..., threads: _Optional[int] = ..., train_rows: _Optional[int] = ..., validation_rows: _Optional[int] = ..., output_bytes: _Optional[int] = ..., fine_tunes: _Optional[bool] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("rows_json",)
    ROWS_JSON_FIELD_NUMBER: _ClassVar[int]
    rows_json: bytes
    def __init__(self, rows_json: _Optional[bytes] = ...) -> None: ...

class Optimized(_message.Message):
    __slots__ = ("document_json",)
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    document_json: bytes
    def __init__(self, document_json: _Optional[bytes] = ...) -> None: ...

class CheckOptimizerRequest(_message.Message):
    __slots__ = ("program", "optimizer", "config_json", "models_json")
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    MODELS_JSON_FIELD_NUMBER: _ClassVar[int]
    program: Program
    optimizer: str
    config_json: bytes
    models_json: bytes
    def __init__(self, program: _Optional[_Union[Program, _Mapping]] = ..., optimizer: _Optional[str] = ..., config_json: _Optional[bytes] = ..., models_json: _Optional[bytes] = ...) -> None: ...

class CheckOptimizerReply(_message.Message):
    __slots__ = ("document_json", "refused", "problems_json")
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_JSON_FIELD_NUMBER: _ClassVar[int]
    document_json: bytes
    refused: Failed
    problems_json: bytes
    def __init__(self, document_json: _Optional[bytes] = ..., refused: _Optional[_Union[Failed, _Mapping]] = ..., problems_json: _Optional[bytes] = ...) -> None: ...

class BeatRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeatReply(_message.Message):
    __slots__ = ("executions", "served", "stuck", "memory_bytes")
    EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    STUCK_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    executions: int
    served: int
    stuck: int
    memory_bytes: int
    def __init__(self, executions: _Optional[int] = ..., served: _Optional[int] = ..., stuck: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class ToScorer(_message.Message):
    __slots__ = ("start", "answer")
    START_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    start: ScoreStart
    answer: ModelAnswer
    def __init__(self, start: _Optional[_Union[ScoreStart, _Mapping]] = ..., answer: _Optional[_Union[ModelAnswer, _Mapping]] = ...) -> None: ...

class ScoreStart(_message.Message):
    __slots__ = ("request_id", "reference", "code", "lm_json", "limit_s", "cases_json")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    LM_JSON_FIELD_NUMBER: _ClassVar[int]
    LIMIT_S_FIELD_NUMBER: _ClassVar[int]
    CASES_JSON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reference: str
    code: str
    lm_json: bytes
    limit_s: float
    cases_json: bytes
    def __init__(self, request_id: _Optional[str] = ..., reference: _Optional[str] = ..., code: _Optional[str] = ..., lm_json: _Optional[bytes] = ..., limit_s: _Optional[float] = ..., cases_json: _Optional[bytes] = ...) -> None: ...
