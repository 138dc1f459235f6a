import curses
import distutils.version
import importlib.metadata
import json
import lib2to3.pytree
import locale
import os
import subprocess

import boto3
import botocore.exceptions


def handler(event, context):
    s3 = boto3.client("s3")
    s3.put_object(Bucket="records", Key="runtimes/python", Body=b"by boto3")
    try:
        s3.get_object(Bucket="records", Key="runtimes/there-is-none")
        missing = "it is there"
    except botocore.exceptions.ClientError as e:
        missing = type(e).__name__
    values = {
        "id": subprocess.getoutput("id"),
        "system": str(os.system("test -x /usr/bin/env && uname >/dev/null")),
        "object": s3.get_object(Bucket="records", Key="runtimes/python")["Body"].read().decode(),
        "missing": missing,
        "boto3": importlib.metadata.version("boto3"),
        "requests": str(importlib.util.find_spec("requests")),
        "services": str(len(boto3.session.Session().get_available_services()) > 300),
        "locale": locale.setlocale(locale.LC_ALL, "") + " " + locale.format_string("%d", 1234567, grouping=True),
        "standard library": ",".join(m.__name__ for m in (curses, distutils.version, lib2to3.pytree)),
    }
    return {"statusCode": 200, "body": json.dumps({"Values": values})}
