"""Errors of requests, which botocore's own are made of. Debian's botocore takes them from the whole of requests, which
takes longer to import than botocore itself, and which AWS's runtimes do not have."""


class RequestException(IOError):
    """An error while a request was handled."""


class ConnectionError(RequestException):
    """The connection failed."""


class ProxyError(ConnectionError):
    """The connection to a proxy failed."""


class SSLError(ConnectionError):
    """TLS failed."""


class Timeout(RequestException):
    """The request took too long."""


class ConnectTimeout(ConnectionError, Timeout):
    """The connection took too long."""


class ReadTimeout(Timeout):
    """The server was silent for too long."""
