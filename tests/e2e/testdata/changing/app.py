import os
import time

VALUE = os.environ["VALUE"]
if VALUE == "broken":
    raise RuntimeError("the init of this one fails")


def handler(event, context):
    """Answers what its environment says."""
    time.sleep(0.02)
    return {"statusCode": 200, "body": VALUE}
