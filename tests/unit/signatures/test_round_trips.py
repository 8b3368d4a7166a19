import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspex.signatures.annotations import annotations_of, default_value
from dspex.signatures.document import (
    signature_from_document,
    signature_to_document,
    type_from_document,
    type_to_document,
)
from dspex.signatures.json_schema import input_schema, output_schema
from dspex.signatures.records import Signature
from dspex.signatures.string_form import parse_type_string
from dspex.signatures.type_strings import type_to_string
from dspex.signatures.types import FieldType
from dspex.signatures.validation import InputValidator, OutputChecker
from dspex.signatures.values import outputs_to_json
from tests.unit.signatures.strategies import has_union, signatures, types, values_of

FEW = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(signatures())
def test_a_signature_survives_its_document_exactly(signature: Signature) -> None:
    document = json.loads(json.dumps(signature_to_document(signature)))
    again = signature_from_document(document)
    # repr tells 1 from True, equality does not
    assert repr(again) == repr(signature)
    assert signature_to_document(again) == document


@FEW
@given(types())
def test_a_type_survives_its_document_exactly(field_type: FieldType) -> None:
    assert repr(type_from_document(json.loads(json.dumps(type_to_document(field_type))))) == repr(field_type)


@FEW
@given(types(objects=False))
def test_a_type_survives_its_text_exactly(field_type: FieldType) -> None:
    assert repr(parse_type_string(type_to_string(field_type))) == repr(field_type)


@FEW
@given(st.data())
def test_inputs_of_the_right_type_are_taken_and_survive(data: st.DataObject) -> None:
    signature = data.draw(signatures())
    given_inputs = {field.name: data.draw(values_of(field.type)) for field in signature.inputs}
    typed = InputValidator(signature).validate(given_inputs)
    assert list(typed) == list(given_inputs)
    as_json = outputs_to_json(typed)
    json.dumps(as_json, allow_nan=False)
    if not any(has_union(field.type) for field in signature.inputs):
        assert outputs_to_json(InputValidator(signature).validate(as_json)) == as_json


@FEW
@given(signatures())
def test_every_default_has_a_python_value(signature: Signature) -> None:
    annotations = annotations_of(signature)
    for field in (*signature.inputs, *signature.outputs):
        if field.has_default and not has_union(field.type):
            assert outputs_to_json({"x": default_value(field, annotations[field.name])}) == {
                "x": field.default
            }


@FEW
@given(st.data())
def test_valid_typed_outputs_have_no_violations(data: st.DataObject) -> None:
    signature = data.draw(signatures())
    checker = OutputChecker(signature)
    typed = checker.validate({field.name: data.draw(values_of(field.type)) for field in signature.outputs})
    assert checker.violations(typed) == ()


@FEW
@given(signatures())
def test_schemas_are_plain_json_that_names_every_field(signature: Signature) -> None:
    for schema, group in (
        (input_schema(signature), signature.inputs),
        (output_schema(signature), signature.outputs),
    ):
        json.dumps(schema, allow_nan=False)
        assert list(schema["properties"]) == [field.name for field in group]
        assert schema["additionalProperties"] is False
