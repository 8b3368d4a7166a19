import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.signatures.records import UNSET, Field
from dspex.signatures.string_form import (
    SignatureSyntaxError,
    parse_inputs_string,
    parse_signature_string,
    parse_type_string,
)
from dspex.signatures.types import (
    ANY,
    BOOL,
    DATE,
    DATETIME,
    FLOAT,
    INT,
    NONE,
    STR,
    DictOf,
    Embedding,
    FieldType,
    ListOf,
    LiteralOf,
    Probability,
    ReasoningChain,
    UnionOf,
)


def test_the_forms_of_a_field() -> None:
    signature = parse_signature_string(
        "question, k: int = 3, when: date = '2024-05-31', tags: list[str] = ['a'], ratio: float = 1"
        " -> answer: Literal['yes', 'no'], confidence: probability"
    )
    assert signature.inputs == (
        Field("question", STR, typed=False),
        Field("k", INT, default=3),
        Field("when", DATE, default="2024-05-31"),
        Field("tags", ListOf(STR), default=["a"]),
        Field("ratio", FLOAT, default=1.0),
    )
    assert signature.outputs == (
        Field("answer", LiteralOf(("yes", "no"))),
        Field("confidence", Probability()),
    )
    assert repr(signature.inputs[4].default) == "1.0"
    assert signature.inputs[0].default is UNSET


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("str", STR),
        ("Any", ANY),
        ("typing.Any", ANY),
        ("bool", BOOL),
        ("datetime", DATETIME),
        ("datetime.date", DATE),
        ("datetime.datetime", DATETIME),
        ("list", ListOf(ANY)),
        ("dict", DictOf(ANY)),
        ("typing.List[Dict[str, int]]", ListOf(DictOf(INT))),
        ("Optional[int]", UnionOf((INT, NONE))),
        ("int | None", UnionOf((INT, NONE))),
        ("None | int", UnionOf((INT, NONE))),
        ("Union[None, int]", UnionOf((NONE, INT))),
        ("Union[int, Union[str, None], int]", UnionOf((INT, STR, NONE))),
        ("Union[int]", INT),
        ("Optional[Optional[int]]", UnionOf((INT, NONE))),
        ("embedding", Embedding()),
        ("embedding[384]", Embedding(384)),
        ("confidence_score", Probability("confidence_score")),
        ("list[reasoning_chain]", ListOf(ReasoningChain())),
        ("Literal['->', \"it's\", -1, True]", LiteralOf(("->", "it's", -1, True))),
        ("Literal[1, True, 1]", LiteralOf((1, True))),
        ("(int)", INT),
    ],
)
def test_types(text: str, expected: FieldType) -> None:
    assert repr(parse_type_string(text)) == repr(expected)
    assert repr(parse_signature_string(f"a -> b: {text}").outputs[0].type) == repr(expected)


@pytest.mark.parametrize(
    "text",
    ["a,b->c", " a ,\n b\r\n->\tc , ", "a, # a remark: it's (\n b -> c", "a, b -> c\n", "\n\na, b -> c"],
)
def test_blanks_lines_and_remarks_do_not_matter(text: str) -> None:
    signature = parse_signature_string(text)
    assert [field.name for field in signature.inputs] == ["a", "b"]
    assert [field.name for field in signature.outputs] == ["c"]


def test_a_field_with_a_default_may_stand_before_one_without() -> None:
    assert [f.name for f in parse_signature_string("k: int = 3, question -> answer").inputs] == [
        "k",
        "question",
    ]


@pytest.mark.parametrize(
    ("text", "position", "advice"),
    [
        ("", 0, "'->' is missing"),
        ("question", 8, "'->' is missing"),
        ("a -> b -> c", 7, "only one '->'"),
        ("-> b", 0, "input is missing before '->'"),
        ("a -> ", 4, "output is missing after '->'"),
        ("a, a -> b", 3, "twice"),
        ("a -> b, b", 8, "twice"),
        ("a -> a", 5, "an input and an output"),
        ("a b -> c", 2, "can't be read"),
        ("a,, b -> c", 2, "can't be read"),
        ("a: -> b", 3, "missing here"),
        ("a: list[int -> b", 12, "bracket is still open"),
        ("a -> b: list[int", 12, "never closed"),
        ("a: list] -> b", 7, "closes nothing"),
        ("a): pass\ndef g(b -> c", 1, "closes nothing"),
        ("a -> b: Literal['x", 16, "string is never closed"),
        ("a; b -> c", 1, "no meaning"),
        ("a, *b -> c", 3, "can't be read"),
        ("a, **b -> c", 5, "'**'"),
        ("a, / -> c", 3, "can't be read"),
        ("class -> b", 0, "keyword of Python"),
        ("a -> _b", 5, "underscore"),
        ("config -> b", 0, "means something else to DSPy"),
        ("a -> instructions", 5, "means something else to DSPy"),
        ("a: None -> b", 0, "write T | None"),
        ("a: string -> b", 3, "write str"),
        ("a: foo -> b", 3, "unknown type 'foo'"),
        ("a: os.path -> b", 3, "unknown type"),
        ("a: 'int' -> b", 3, "without quotes"),
        ("a: 3 -> b", 3, "not a type"),
        ("a: f() -> b", 3, "not a type"),
        ("a: int[str] -> b", 3, "takes no types"),
        ("a: Optional -> b", 3, "needs its types"),
        ("a: list[int, str] -> b", 3, "exactly 1"),
        ("a: dict[str] -> b", 3, "exactly 2"),
        ("a: dict[int, str] -> b", 8, "keys of a dict"),
        ("a: Literal['x', None] -> b", 16, "outside of Literal"),
        ("a: Literal[1.5] -> b", 11, "Literal takes"),
        ("a: embedding[0] -> b", 3, "dimensions"),
        ("a: int = 'x' -> b", 9, "must be an integer, not a string"),
        ("a: int = True -> b", 9, "must be an integer, not a boolean"),
        ("a: list[int] = [1, 'x'] -> b", 15, "/1: must be an integer"),
        ("a -> b: probability = 1.5", 22, "at most 1"),
        ("a: float = 1e999 -> b", 11, "finite"),
        ("a: Any = print('x') -> b", 9, "plain value"),
        ("a: Any = {1: 2} -> b", 10, "keys of a dict"),
        ("a: Any = f'{x}' -> b", 9, "plain value"),
        ("a: date = '2024-13-01' -> b", 10, "must be a date"),
        ("日本: str, ü: foo -> b", 12, "unknown type 'foo'"),
        ("é: str = 'ü\U0001f600', b: bar -> c", 18, "unknown type 'bar'"),
        ("a:\r\n  str,\r\n  ü: foo -> c", 17, "unknown type 'foo'"),
        ("a\x00 -> b", 1, "can't be part"),
        ("a -> b: Literal['\ud800']", 17, "can't be part"),
        ("a: int = " + "9" * 5000 + " -> b", None, "write"),
        ("a: " + "list[" * 41 + "int" + "]" * 41 + " -> b", 207, "brackets deep"),
        ("a: int = " + "-" * 9000 + "1 -> b", None, "nested too deeply"),
        ("a -> b" + " " * 10_000, 10_000, "more than 10000"),
    ],
)
def test_an_error_points_at_the_character_and_says_what_to_write(
    text: str, position: int | None, advice: str
) -> None:
    with pytest.raises(SignatureSyntaxError) as caught:
        parse_signature_string(text)
    error = caught.value
    assert (error.kind, error.code) == ("invalid", "bad_signature")
    assert advice.lower() in error.message.lower()
    if position is not None:
        assert error.position == position
        assert f"at character {position}" in error.message


def test_a_long_union_is_no_trouble() -> None:
    assert parse_type_string("|".join(["int", "str"] * 1200)) == UnionOf((INT, STR))


def test_the_caret_stands_under_the_character() -> None:
    with pytest.raises(SignatureSyntaxError) as caught:
        parse_signature_string("question: strin -> answer")
    _, line, caret = caught.value.message.split("\n")
    assert line[caret.index("^") :].startswith("strin")


@settings(max_examples=400, derandomize=True, deadline=None)
@given(
    st.text(max_size=30)
    | st.lists(
        st.sampled_from(
            [*"ab:,=[]()'|-# \n\\*", "->", "int", "list[", "Literal[", "é", "'x'", "3", "None", "lambda "]
        ),
        max_size=14,
    ).map("".join)
)
def test_any_text_is_a_signature_or_an_error_with_a_place(text: str) -> None:
    for parse in (parse_signature_string, parse_type_string):
        try:
            parse(text)
        except SignatureSyntaxError as error:
            assert 0 <= error.position <= len(text)


def test_inputs_alone() -> None:
    text = "question, k: int = 3"
    assert parse_inputs_string(text) == parse_signature_string(f"{text} -> answer").inputs


@pytest.mark.parametrize(
    ("text", "position"),
    [("", 0), ("a -> b", 2), ("a: strr", 3), ("a, a", 3), (", ".join(f"f{n}" for n in range(101)), 490)],
)
def test_inputs_alone_are_refused_with_their_place(text: str, position: int) -> None:
    with pytest.raises(SignatureSyntaxError) as refused:
        parse_inputs_string(text)
    assert refused.value.position == position
