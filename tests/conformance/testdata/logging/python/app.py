"""Logs and answers as the event says."""

import logging
from decimal import Decimal


def broken(): raise ValueError("as\nasked")  # in line 7


def handler(event, context):
    if event == "raise":
        broken()
    if event == "half":
        raise ValueError("half \ud800")
    if event == "results":
        return [Decimal("0.1234567890123456789012345"), Decimal("100.10"), "hi \ud83d ü", float("nan")]
    print("printed")
    logging.warning("two\nlines")
    logging.info("too fine for text")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("caught")
    return None
