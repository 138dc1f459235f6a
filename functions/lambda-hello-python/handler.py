"""lambda-hello-python: POST {"name": "x"} answers {"message": "hello x", "runtime": "python3.11"}."""

import base64
import json
import sys

RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"


def handler(event, context):
    """Greets the name in the request's JSON body, the world when there is none."""
    try:
        name = name_of(event)
    except ValueError as e:
        return answer(400, {"message": str(e)})
    return answer(200, {"message": f"hello {name}", "runtime": RUNTIME})


def name_of(event):
    """The name in the body of an API Gateway event; ValueError says what is wrong with the body."""
    body = event.get("body") or "{}"
    try:
        if event.get("isBase64Encoded"):
            body = base64.b64decode(body, validate=True).decode("utf-8")
        given = json.loads(body)
    except ValueError:
        raise ValueError("the request body must be JSON") from None
    if not isinstance(given, dict):
        raise ValueError("the request body must be a JSON object")
    return given.get("name") or "world"


def answer(status, body):
    """An API Gateway proxy response."""
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(body, ensure_ascii=False),
    }
