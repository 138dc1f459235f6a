"""Sentry's SDK wraps AWS's runtime client; what it sends comes back to this process."""
import gzip
import http.server
import threading

import sentry_sdk
from sentry_sdk.integrations.aws_lambda import AwsLambdaIntegration

received = []


class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        received.append((gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


threading.Thread(target=http.server.HTTPServer(("127.0.0.1", 9999), Sink).serve_forever, daemon=True).start()
sentry_sdk.init("http://key@127.0.0.1:9999/1", integrations=[AwsLambdaIntegration(timeout_warning=True)])


def handler(event, context):
    if event.get("fail"):
        raise LookupError(event["fail"])
    return {"received": received}
