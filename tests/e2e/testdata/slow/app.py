import json
import time


def handler(event, context):
    """Sleeps for as long as it is told, and prints before and after, so that the log tells whether it came to its end."""
    order = json.loads(event.get("body") or "{}")
    told = {
        "container": context.log_stream_name,
        "remaining_ms": context.get_remaining_time_in_millis(),
        "arn": context.invoked_function_arn,
    }
    print("begun", order.get("mark"))
    time.sleep(order.get("seconds", 0))
    print("ended", order.get("mark"), "with", context.get_remaining_time_in_millis(), "ms left")
    return {"statusCode": 200, "body": json.dumps(told)}
