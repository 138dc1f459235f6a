"""AWS Lambda runtime client of the esb Python base image: the loop between the Runtime API and a handler.

    python3 -S /var/runtime/bootstrap.py [module.function]

The handler is $_HANDLER, as on AWS, where instrumentation may have put its own in; else the first argument (an image's
CMD). Its module is searched in $LAMBDA_TASK_ROOT (/var/task), then in the layers below /opt, as AWS does. Messages and
error types are those of AWS's own Python client (awslambdaric); so are LambdaRuntimeClient, its methods post_*, and
handle_event_request, which sentry_sdk finds in the module __main__ and puts its own in front of: they are called by their
names, and as AWS's client calls them.

Start-up is paid with every cold start, hence: no site module, no http.client (35 ms of imports), the C socket type
without the socket module (8 ms), and traceback only when something has failed.
"""

import json
import os
import sys
import time
from _signal import SIGTERM, signal
from _socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

API = "/2018-06-01/runtime"


class RuntimeApiError(Exception):
    """The Runtime API gave an answer that the client cannot go on from."""


class LambdaRuntimeClient:
    """One keep-alive connection to the Runtime API."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.host, self.port, self.peer = address, int(port), host.strip("[]") or "127.0.0.1"
        self.sock, self.buffer = None, b""

    def wait_next_invocation(self):
        """Waits for an invocation; returns its headers (names in lower case) and body."""
        status, headers, body = self._request("GET", "/invocation/next", b"", ())
        if status != 200:
            raise RuntimeApiError(f"GET {API}/invocation/next: status {status}: {body[:500]!r}")
        return headers, body

    def post_invocation_result(self, request_id, body):
        """Sends the result of an invocation."""
        return self._request("POST", f"/invocation/{request_id}/response", body, ())

    def post_invocation_error(self, request_id, error):
        """Reports a failed invocation."""
        return self._fail(f"/invocation/{request_id}/error", error)

    def post_init_error(self, error):
        """Reports a failed initialisation."""
        return self._fail("/init/error", error)

    def _fail(self, path, error):
        return self._request("POST", path, to_json(error), (("Lambda-Runtime-Function-Error-Type", error["errorType"]),))

    def _request(self, method, path, body, headers):
        head = [f"{method} {API}{path} HTTP/1.1", f"Host: {self.host}", "User-Agent: esb-python"]
        if method == "POST":
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in headers]
        message = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1", "replace") + body
        reused = self.sock is not None
        try:
            return self._exchange(message)
        except (ConnectionError, EOFError):
            # The server may have closed a connection that was idle for as long as the handler ran.
            self._close()
            if not reused:
                raise
        return self._exchange(message)

    def _exchange(self, message):
        if self.sock is None:
            self.sock = socket(AF_INET6 if ":" in self.peer else AF_INET, SOCK_STREAM)
            self.sock.connect((self.peer, self.port))
            self.sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self.sock.sendall(message)
        status_line, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self._exactly(int(headers.get("content-length") or 0))
        if headers.get("connection", "").lower() == "close":
            self._close()
        return int(status_line.split(" ", 2)[1]), headers, body

    def _chunks(self):
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            yield self._exactly(size)
            self._exactly(2)
        while self._until(b"\r\n"):
            pass  # trailers

    def _until(self, mark):
        while (end := self.buffer.find(mark)) < 0:
            self.buffer += self._receive(65536)
        found, self.buffer = self.buffer[:end], self.buffer[end + len(mark):]
        return found

    def _exactly(self, size):
        parts, missing = [self.buffer[:size]], size - len(self.buffer)
        self.buffer = self.buffer[size:]
        while missing > 0:
            parts.append(self._receive(min(missing, 1 << 20)))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _receive(self, size):
        data = self.sock.recv(size)
        if not data:
            raise EOFError("the Runtime API closed the connection")
        return data

    def _close(self):
        if self.sock is not None:
            self.sock.close()
        self.sock, self.buffer = None, b""


class Attributes:
    """An object whose attributes are the given names, None where no value is known."""

    def __init__(self, names, values):
        for attribute, key in names.items():
            setattr(self, attribute, values.get(key))

    def __repr__(self):
        return f"{type(self).__name__}({self.__dict__})"


class CognitoIdentity(Attributes):
    """context.identity."""


class Client(Attributes):
    """context.client_context.client."""


class ClientContext(Attributes):
    """context.client_context."""


class LambdaContext:
    """The second argument of a handler (AWS: Lambda context object in Python)."""

    def __init__(self, headers):
        environ = os.environ.get
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        self.function_name = environ("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = environ("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = environ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = environ("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environ("AWS_LAMBDA_LOG_STREAM_NAME")
        self._deadline_ms = int(headers.get("lambda-runtime-deadline-ms") or 0)
        identity = _json_header(headers, "lambda-runtime-cognito-identity") or {}
        self.identity = CognitoIdentity(
            {"cognito_identity_id": "cognitoIdentityId", "cognito_identity_pool_id": "cognitoIdentityPoolId"}, identity)
        self.client_context = None
        if (given := _json_header(headers, "lambda-runtime-client-context")) is not None:
            self.client_context = ClientContext({"custom": "custom", "env": "env"}, given)
            names = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")
            self.client_context.client = Client({n: n for n in names}, given["client"]) if given.get("client") else None

    def get_remaining_time_in_millis(self):
        """Milliseconds until the invocation is ended by force; never negative."""
        return max(self._deadline_ms - int(time.time() * 1000), 0)

    def log(self, message):
        """Writes to standard output, as AWS's context.log does."""
        sys.stdout.write(str(message))


def _json_header(headers, name):
    # Headers are bytes on the wire: a client context may hold UTF-8.
    value = headers.get(name)
    value = json.loads(value.encode("latin-1").decode("utf-8")) if value else None
    return value if isinstance(value, dict) else None


class Fault(Exception):
    """A failure of the runtime rather than of the handler, with AWS's name for it."""

    def __init__(self, error_type, message, trace=()):
        super().__init__(message)
        self.error_type, self.trace = error_type, list(trace)


def describe(exc, frames_of_client, request_id=""):
    """The error object of an exception, as AWS's Python client builds it."""
    if isinstance(exc, Fault):
        return {"errorMessage": str(exc), "errorType": exc.error_type, "requestId": request_id, "stackTrace": exc.trace}
    try:
        message = str(exc)
    except Exception:  # the function's own class
        message = "<exception str() failed>"
    return {"errorMessage": message, "errorType": type(exc).__name__, "requestId": request_id,
            "stackTrace": format_trace(exc.__traceback__, frames_of_client)}


def format_trace(trace, skip):
    """Formatted stack entries without the client's own frames, and, as AWS has them, without marks below the source."""
    import traceback

    while skip and trace is not None:
        trace, skip = trace.tb_next, skip - 1
    return traceback.format_list([(f.filename, f.lineno, f.name, f.line) for f in traceback.extract_tb(trace)])


NO_BREAK_SPACE = "\u00a0"
# Numbers of levels in the type of a frame (aws-lambda-python-runtime-interface-client, lambda_runtime_log_utils.py).
DEBUG, INFO, WARNING, ERROR, CRITICAL = 2, 3, 4, 5, 6


class Log:
    """Where messages go that may have several lines: each is one event.

    lambda-init, and AWS, take them in frames from a descriptor of their own ($_LAMBDA_TELEMETRY_LOG_FD); elsewhere they go
    to standard output.
    """

    def __init__(self, environ):
        fd = environ.pop("_LAMBDA_TELEMETRY_LOG_FD", "")
        self.fd = int(fd) if fd.isdecimal() and self._is_ours(int(fd)) else None
        self.json = environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
        level = environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
        self.level = "DEBUG" if level == "TRACE" else level

    @staticmethod
    def _is_ours(fd):
        # Standard output once more, or a file. A wrapper may have closed it, and the number be that of something else now.
        try:
            frames, stdout = os.fstat(fd), os.fstat(1)
        except OSError:
            return False
        return frames.st_mode & 0o170000 == 0o100000 or (frames.st_dev, frames.st_ino) == (stdout.st_dev, stdout.st_ino)

    def write(self, message, level=0):
        """Writes one event; level is its number, 0 for none."""
        if self.fd is None:
            sys.stdout.write(message if message.endswith("\n") else message + "\n")
            return
        sys.stdout.flush()  # what was printed before stands before it
        data = message.encode("utf-8", "backslashreplace")
        frame = 0xA55A0002 | (not self.json) | level << 2
        head = frame.to_bytes(4, "big") + len(data).to_bytes(4, "big") + (time.time_ns() // 1000).to_bytes(8, "big")
        rest = memoryview(head + data)
        while rest:
            rest = rest[os.write(self.fd, rest):]

    def error(self, error):
        """Writes an error object as AWS does."""
        if self.json:
            now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            self.write(to_json({"timestamp": now, "level": "ERROR", **error}).decode(), ERROR)
            return
        lines = [f"[ERROR] {error['errorType']}" + (f": {error['errorMessage']}" if error["errorMessage"] else ""),
                 "Traceback (most recent call last):"]
        for entry in error["stackTrace"]:
            for line in entry.splitlines():
                code = line.lstrip(" ")
                lines.append(NO_BREAK_SPACE * (len(line) - len(code)) + code)
        text = "\n".join(lines)
        if self.fd is None:
            # One line on standard output is one event.
            text = text.replace("\n", "\r").encode("utf-8", "backslashreplace").decode()
        self.write(text, ERROR)


def load(handler):
    """Imports the handler's module and returns its function; raises Fault with AWS's messages."""
    try:
        name, function = handler.rsplit(".", 1)
    except ValueError as e:
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{handler}': {e}") from None
    module = name.replace("/", ".")
    if module.split(".")[0] in sys.builtin_module_names:
        raise Fault("Runtime.BuiltInModuleConflict", f"Cannot use built-in module {name} as a handler module")
    try:
        __import__(module)
    except ImportError as e:
        raise Fault("Runtime.ImportModuleError", f"Unable to import module '{name}': {e}") from None
    except SyntaxError as e:
        raise Fault("Runtime.UserCodeSyntaxError", f"Syntax error in module '{name}': {e}",
                    [f'  File "{e.filename}" Line {e.lineno}\n    {e.text}']) from None
    try:
        return getattr(sys.modules[module], function)
    except AttributeError:
        raise Fault("Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{name}'") from None


# What the encoder of json knows and has nothing below it.
ATOMS = frozenset((str, int, float, bool, type(None)))


class Encoder:
    """JSON as AWS's client writes it: with simplejson, Decimals as their own digits."""

    def __init__(self):
        # The runtime that the function asked for: this interpreter may stand in for another version.
        version = os.environ.get("AWS_EXECUTION_ENV", "").rpartition("python")[2].split(".")
        minor = int(version[1]) if len(version) == 2 and version[1].isdecimal() else sys.version_info.minor
        self.encode = json.JSONEncoder(ensure_ascii=minor < 12, default=self._other).encode
        self.mark, self.marked = None, False

    def __call__(self, value):
        self.marked = False
        text = self.encode(value)
        # Known to be no circle now. Named tuples are objects, of which the encoder has made lists without asking.
        if self._has_names(value):
            text = self.encode(self._without_names(value))
        if self.marked:
            text = self.marks.sub(r"\1", text)
        # Half a surrogate pair is escaped in any version: it stands in a string, and has no UTF-8.
        return text.encode("utf-8", "backslashreplace")

    def _has_names(self, value):
        stack = [value]
        while stack:
            value = stack.pop()
            kind = type(value)
            if kind is dict:
                value = value.values()
            elif kind is not list:
                if isinstance(value, dict):
                    value = value.values()
                elif not isinstance(value, (list, tuple)):
                    continue
                elif callable(getattr(value, "_asdict", None)):
                    return True
            for v in value:
                if type(v) not in ATOMS:
                    stack.append(v)
        return False

    def _without_names(self, value):
        if callable(getattr(value, "_asdict", None)):
            value = value._asdict()
        if isinstance(value, dict):
            return {k: self._without_names(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._without_names(v) for v in value]
        return value

    def _other(self, value):
        # decimal is not imported for this: a Decimal that is there has imported it.
        decimal = sys.modules.get("decimal")
        if decimal is not None and isinstance(value, decimal.Decimal):
            if value.is_nan():
                return float("nan")
            if self.mark is None:
                import re

                # Nobody can have written it into a text.
                self.mark = f"decimal:{os.urandom(16).hex()}:"
                self.marks = re.compile(f'"{self.mark}([^"]*)"')
            self.marked = True
            return self.mark + str(value)
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if callable(getattr(value, "_asdict", None)):
            return self._without_names(value)
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encoder = None


def to_json(value):
    """The bytes of a value as JSON."""
    global _encoder
    if _encoder is None:
        _encoder = Encoder()
    return _encoder(value)


def invoke(function, headers, body):
    """Runs one invocation and returns the body of its answer."""
    try:
        event = json.loads(body)
    except ValueError as e:
        raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {e}") from None
    result = function(event, LambdaContext(headers))
    if isinstance(result, bytes):
        return result
    try:
        return to_json(result)
    except Exception as e:
        raise Fault("Runtime.MarshalError", f"Unable to marshal response: {e}") from None


def handle_event_request(lambda_runtime_client, request_handler, headers, body, log):
    """Runs one invocation and tells the Runtime API how it ended."""
    request_id = headers["lambda-runtime-aws-request-id"]
    try:
        answer = invoke(request_handler, headers, body)
    except Exception as e:
        error = describe(e, 2, request_id)
        log.error(error)
        sys.stdout.flush()
        lambda_runtime_client.post_invocation_error(request_id, error)
        return
    sys.stdout.flush()  # what the handler printed belongs before the END line
    status, _, told = lambda_runtime_client.post_invocation_result(request_id, answer)
    if status >= 300:
        # The Runtime API has ended the invocation by itself (413: the answer is too large).
        sys.stdout.write(f"[ERROR] the answer was refused with status {status}: {told[:500].decode('utf-8', 'replace')}\n")


class LoggingHook:
    """Gives the root logger AWS's handler when, and only when, the function imports logging."""

    def __init__(self, log):
        self.log, self.request_id, self.tenant_id = log, "", None

    def find_spec(self, name, path=None, target=None):
        """Part of the import protocol: wraps the loader of the logging module."""
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self._configure(module)

        spec.loader.exec_module = exec_module
        return spec

    def _configure(self, logging):
        log, hook = self.log, self

        class LambdaLoggerHandler(logging.Handler):
            def emit(self, record):
                try:
                    log.write(self.format(record), min(5, max(0, record.levelno // 10)) + 1 if record.levelno >= 10 else 0)
                except Exception:
                    self.handleError(record)

        class LambdaLoggerFilter(logging.Filter):
            def filter(self, record):
                record.aws_request_id, record.tenant_id = hook.request_id, hook.tenant_id
                return True

        logging.Formatter.converter = time.gmtime
        handler = LambdaLoggerHandler()
        if log.json:
            handler.setFormatter(json_formatter(logging))
        else:
            handler.setFormatter(logging.Formatter(
                "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n", "%Y-%m-%dT%H:%M:%S"))
        handler.addFilter(LambdaLoggerFilter())
        root = logging.getLogger()
        if log.level in logging._nameToLevel:
            root.setLevel(log.level)
        root.addHandler(handler)


def json_formatter(logging):
    """A formatter of AWS's JSON log lines (developer guide, "Using Lambda advanced logging controls with Python")."""
    own = {"name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module", "exc_info", "exc_text", "stack_info", "lineno",
           "funcName", "created", "msecs", "relativeCreated", "thread", "threadName", "processName", "process", "taskName",
           "aws_request_id", "tenant_id"}
    encode = json.JSONEncoder(ensure_ascii=False).encode

    class JsonFormatter(logging.Formatter):
        def format(self, record):
            import traceback

            level = min(50, max(0, record.levelno)) // 10 * 10
            line = {
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
                "level": logging.getLevelName(level),
                "message": record.getMessage(),
                "logger": record.name,
            }
            if record.exc_info and record.exc_info[0]:
                line["stackTrace"] = traceback.format_tb(record.exc_info[2])
                line["errorType"] = record.exc_info[0].__name__
                line["errorMessage"] = str(record.exc_info[1])
            line["requestId"] = record.aws_request_id
            if record.exc_info and record.exc_info[0]:
                line["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
            if record.tenant_id is not None:
                line["tenantId"] = record.tenant_id
            for key, value in record.__dict__.items():  # the argument extra
                if key not in own and key not in line and value is not None:
                    line[key] = value
            return encode(line) + "\n"

    return JsonFormatter()


def wait(fd):
    """Waits until lambda-init says on a socket whose this process is, and becomes as if it had been started so.

    It was started before its function was known, and is nobody's until then: see docs/lambda-init.md. Nothing is loaded ahead that the
    client does not load before the code of a function can be found, or code would no longer come before the standard library. Nothing that is random has been drawn.
    """
    os.write(fd, b"\n")
    data = b"".join(iter(lambda: os.read(fd, 1 << 16), b""))
    os.close(fd)
    if not data:
        sys.exit(0)  # it will be nobody's
    told = json.loads(data)
    os.environ.clear()
    for variable in told["env"]:
        name, separator, value = variable.partition("=")
        if name and separator:  # else it cannot be set, only inherited
            os.environ[name] = value
    show_environment("".join(variable + "\0" for variable in told["env"]).encode("utf-8", "surrogateescape"))
    sys.orig_argv[:] = told["args"]
    sys.argv[1:] = told["args"][told["args"].index(sys.argv[0]) + 1:]
    os.chdir(told["cwd"])


def show_environment(block):
    """Puts an environment where the kernel has the one that this process was started with, for /proc/self/environ."""
    try:
        with open("/proc/self/stat", "rb") as f:
            start, end = map(int, f.read().rpartition(b")")[2].split()[47:49])  # env_start and env_end (proc(5))
        if len(block) <= end - start:
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(start)
                memory.write(block.ljust(end - start, b"\0"))
    except OSError:
        pass  # a kernel that does not allow it: only this file would tell


def main():
    """Initialises the function, then serves invocations until the process is ended."""
    import builtins
    from _sitebuiltins import Quitter  # -S leaves these two out, and handlers use them

    if fd := os.environ.pop("_ESB_WAIT_FD", ""):
        wait(int(fd))
    if os.environ.get("PYTHONPATH", "/var/runtime") != "/var/runtime":
        # The site module, which -S leaves out, would have loaded it: instrumentation in layers begins there.
        try:
            import sitecustomize  # noqa: F401
        except ImportError:
            pass
    builtins.exit, builtins.quit = Quitter("exit", "Ctrl-D"), Quitter("quit", "Ctrl-D")
    # A line is out as soon as it is complete, whatever happens to the process next.
    sys.stdout.reconfigure(line_buffering=True)
    signal(SIGTERM, lambda *_: sys.exit(0))

    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if not address:
        sys.exit("AWS_LAMBDA_RUNTIME_API is not set: this image runs below lambda-init or another Runtime API (host:port)")
    handler = os.environ.get("_HANDLER") or (sys.argv[1] if len(sys.argv) > 1 else "")
    os.environ["_HANDLER"] = handler
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path[0:1] = [os.environ.get("LAMBDA_TASK_ROOT", "/var/task"), f"/opt/python/lib/{version}/site-packages", "/opt/python",
                     os.path.dirname(os.path.abspath(__file__))]
    log = Log(os.environ)
    client, hook = LambdaRuntimeClient(address), LoggingHook(log)
    sys.meta_path.insert(0, hook)
    try:
        function = load(handler)
    except Exception as e:
        error = describe(e, 2)
        log.error(error)
        client.post_init_error(error)
        sys.exit(1)

    while True:
        headers, body = client.wait_next_invocation()
        hook.request_id = headers["lambda-runtime-aws-request-id"]
        hook.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        if trace := headers.get("lambda-runtime-trace-id"):
            os.environ["_X_AMZN_TRACE_ID"] = trace
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        handle_event_request(client, function, headers, body, log)


if __name__ == "__main__":
    main()
