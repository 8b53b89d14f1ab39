"""The OpenAPI document of a service, made from the pydantic classes of its tasks."""

import json
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from raysl import __version__
from raysl.serve.service import FEEDBACK, INFO, FeedbackRequest, FeedbackResponse, InfoResponse, Service

ERRORS = {
    "400": "The body is no JSON object", "408": "The body came too slowly", "413": "The body is too large",
    "415": "The body is not application/json", "422": "A field is wrong; `errors` names it",
    "503": "Busy; Retry-After says when to try again",
}  # fmt: skip
ERROR_SCHEMA = {
    "type": "object",
    "required": ["request_id", "errors"],
    "properties": {
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"field": {"type": "string"}, "message": {"type": "string"}}},
        },
    },
}
Mode = Literal["validation", "serialization"]
REFERENCE = "#/components/schemas/{model}"


def document(service: Service) -> bytes:
    """OpenAPI 3.1 as JSON."""
    posts: dict[str, tuple[type[BaseModel], type[BaseModel], str]] = {
        task.name: (task.Request, task.Response, _summary(type(task))) for task in service.tasks.values()
    }
    posts[FEEDBACK] = (FeedbackRequest, FeedbackResponse, _summary(FeedbackRequest))
    models: list[tuple[type[BaseModel], Mode]] = [(InfoResponse, "serialization")]
    for request, response, _ in posts.values():
        models += [(request, "validation"), (response, "serialization")]
    names, schemas = models_json_schema(models, ref_template=REFERENCE)
    paths: dict[str, Any] = {
        "/healthz": {"get": {"summary": "Whether the service answers", "responses": {"200": {"description": "It does"}}}},
        f"/v1/{INFO}": {"get": _operation(_summary(InfoResponse), names[(InfoResponse, "serialization")])},
    }
    for name, (request, response, summary) in posts.items():
        operation = _operation(summary, names[(response, "serialization")])
        body = {"required": True, "content": _json(names[(request, "validation")])}
        errors = {status: {"description": text, "content": _json({"$ref": REFERENCE.format(model="Errors")})}
                  for status, text in ERRORS.items()}  # fmt: skip
        paths[f"/v1/{name}"] = {"post": operation | {"requestBody": body, "responses": operation["responses"] | errors}}
    info = {"title": f"raysl {service.settings.name}", "version": f"{service.settings.version}", "x-raysl": __version__}
    components = {"schemas": {**schemas.get("$defs", {}), "Errors": ERROR_SCHEMA}}
    return json.dumps({"openapi": "3.1.0", "info": info, "paths": paths, "components": components}).encode()


def _operation(summary: str, schema: Any) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "The answer", "content": _json(schema)}}}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _summary(documented: type) -> str:
    return (documented.__doc__ or documented.__name__).strip().splitlines()[0].rstrip(".")
