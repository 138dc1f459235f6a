"""The function that is to be robbed."""

import json
import os


def handler(event, context):
    return {"statusCode": 200, "body": json.dumps({"from": "victim", "password": os.environ["PAYROLL_PASSWORD"]})}
