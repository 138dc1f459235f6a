"""The hostile function: runs the Python that its event brings, and answers with what that left in `result`."""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import traceback
import urllib.parse


def request(method, url, body=b"", headers=None, timeout=10):
    """One HTTP request; (status, headers, body), or (0, {}, reason) when there is no answer."""
    u = urllib.parse.urlsplit(url)
    if isinstance(body, str):
        body = body.encode()
    try:
        c = http.client.HTTPConnection(u.hostname, u.port or 80, timeout=timeout)
        c.request(method, (u.path or "/") + ("?" + u.query if u.query else ""), body=body, headers=headers or {})
        r = c.getresponse()
        return r.status, dict(r.getheaders()), r.read().decode("utf-8", "replace")
    except OSError as e:
        return 0, {}, str(e)
    except http.client.HTTPException as e:
        return 0, {}, repr(e)


def signed(service, method, url, body=b"", headers=None, key=None, secret=None, token=None, region="us-east-1", timeout=10):
    """request(), signed (AWS signature version 4) with the function's own credentials when no others are given."""
    if isinstance(body, str):
        body = body.encode()
    own = key is None
    key = key or os.environ["AWS_ACCESS_KEY_ID"]
    secret = secret or os.environ["AWS_SECRET_ACCESS_KEY"]
    token = os.environ.get("AWS_SESSION_TOKEN") if own else token
    u = urllib.parse.urlsplit(url)
    now = datetime.datetime.now(datetime.timezone.utc)
    date = now.strftime("%Y%m%dT%H%M%SZ")
    h = {k.lower(): v for k, v in (headers or {}).items()}
    h.update({"host": u.netloc, "x-amz-date": date, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()})
    if token:
        h["x-amz-security-token"] = token
    names = ";".join(sorted(h))
    query = "&".join(sorted("=".join(urllib.parse.quote(x, safe="-_.~") for x in pair) for pair in urllib.parse.parse_qsl(u.query, keep_blank_values=True)))
    canonical = "\n".join([method, u.path or "/", query, "".join(f"{k}:{h[k].strip()}\n" for k in sorted(h)), names, h["x-amz-content-sha256"]])
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    k = ("AWS4" + secret).encode()
    for part in (date[:8], region, service, "aws4_request"):
        k = hmac.new(k, part.encode(), hashlib.sha256).digest()
    h["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={hmac.new(k, text.encode(), hashlib.sha256).hexdigest()}"
    return request(method, url, body, h, timeout)


def connects(host, port, timeout=3):
    """True when a TCP connection can be made."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False


def opened(path, flags=os.O_RDONLY):
    """"opened" when the file can be opened so, else the errno's name."""
    import errno
    try:
        os.close(os.open(path, flags))
        return "opened"
    except OSError as e:
        return errno.errorcode[e.errno]


def handler(event, context):
    code = event["body"] if "body" in event else event["code"]
    names = dict(globals(), context=context, result=None)
    try:
        exec(code, names)
        answer = {"result": names["result"]}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    return {"statusCode": 200, "body": json.dumps(answer, default=repr)}
