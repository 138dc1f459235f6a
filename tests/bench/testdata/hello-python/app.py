"""Says which process answers, so that a cold start can be told from a warm one."""

import json
import os

INSTANCE = os.urandom(8).hex()


def handler(event, context):
    return {"statusCode": 200, "body": json.dumps({"instance": INSTANCE, "message": json.loads(event["body"])["message"]})}
