"""Holds an answer against what `/openapi.json` says of its route."""

import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs


def check_described(
    description: Mapping[str, Any], asked: tuple[str, str], *, status: int, kind: str, content: Any
) -> None:
    """Fail unless this answer of a route, with this media type, has the shape that the description promises.

    `asked` is the method and the path, which may have a query; `content` is what the JSON of the answer says.
    """
    method, path = asked
    path = path.partition("?")[0]
    named = [name for name in description["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", name), path)]
    exact = path if path in named else next(iter(named), None)
    assert exact is not None, f"{path} is not described"
    if method.lower() not in description["paths"][exact]:
        assert status == 405, f"{method} {exact} is not described"
        return
    answers = description["paths"][exact][method.lower()]["responses"]
    assert str(status) in answers, f"{method} {exact} answers {status}, and describes {sorted(answers)}"
    told = answers[str(status)].get("content", {})
    assert kind in told, f"{method} {exact} answers {status} as {kind}, and describes {sorted(told)}"
    schema = {**told[kind]["schema"], "components": description["components"]}
    faults = [f"{one.instance_path}: {one.message}" for one in jsonschema_rs.validator_for(schema).iter_errors(content)]
    assert faults == [], f"{method} {exact} {status}: {faults}"
