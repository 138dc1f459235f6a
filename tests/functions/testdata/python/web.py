"""Flask, from Debian's packages in a layer, behind a WSGI bridge of a few lines."""
import base64
import io
import sys
from urllib.parse import unquote

from flask import Flask, jsonify, render_template_string, request

app = Flask(__name__)


@app.route("/python/flask/<name>", methods=["POST"])
def hello(name):
    return jsonify(hello=name, form=request.form.to_dict(), page=render_template_string("<b>{{ x }}</b>", x="<&>"))


def handler(event, context):
    body = event.get("body") or ""
    body = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    headers = event.get("headers") or {}
    environ = {
        "REQUEST_METHOD": event["httpMethod"], "PATH_INFO": unquote(event["path"]), "QUERY_STRING": "", "SERVER_NAME": "box",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": next((v for k, v in headers.items() if k.lower() == "content-type"), ""),
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
        "wsgi.multithread": False, "wsgi.multiprocess": False, "wsgi.run_once": False,
    }
    answer = {}

    def start_response(status, answer_headers, exc_info=None):
        answer.update(statusCode=int(status.split()[0]), headers=dict(answer_headers))

    answer["body"] = b"".join(app(environ, start_response)).decode()
    return answer
