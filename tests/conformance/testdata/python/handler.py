"""Does what the event says: {"do": "none" | "raise" | "exit" | "big" | "context" | "log"}."""

import os


def handler(event, context):
    do = event.get("do")
    if do == "raise":
        raise ValueError("as asked")
    if do == "exit":
        os._exit(127)
    if do == "big":
        return "x" * 6291557
    if do == "log":
        print("a line of the log")
        return "logged"
    if do == "context":
        client = context.client_context
        return {
            "arn": context.invoked_function_arn,
            "version": context.function_version,
            "custom": client.custom if client else None,
            "event": event,
        }
    if do == "none":
        return None
    return event
