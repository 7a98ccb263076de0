"""The contract's schemas, read with none of tapgate's code."""
import base64, functools, json, pathlib

import jsonschema, referencing

SCHEMAS = pathlib.Path(__file__).parent.parent.parent / "docs" / "schemas"


@functools.cache
def schema(name):
    content = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    record = referencing.Resource.from_contents(json.loads((SCHEMAS / "record.json").read_text()))
    registry = referencing.Registry().with_resource("record.json", record)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(content, registry=registry, format_checker=checker)


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
