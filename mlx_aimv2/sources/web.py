"""Images at HTTP(S) addresses: downloads of bounded size and time, from public addresses unless others are allowed.

The IP addresses of a host are looked up once for a request, all of them are checked, and the connection goes to one
of them: another answer of the name server comes too late. Proxies of the environment are not used, because they
would look up the host again.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import io
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property, partial
from http import HTTPStatus
from time import monotonic, sleep
from typing import Any
from urllib.parse import unquote

from .._version import __version__
from ..errors import Advice, BrokenImageError, ImageError, ImageTooLargeError
from ..processing.source_image import SourceImage
from ..storage.stand_ins import LOOK, WEB_PAGE, stand_in
from .addresses import Address, is_public, without_credentials
from .options import SourceOptions

CONNECTIONS = 8  # at once to a host
CONNECT_S, READ_S = 10.0, 20.0  # the longest wait for a connection, and for the next bytes
RETRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 3, 0.5, 30.0
MOST_FAILURES = 12  # in a row, after which a host is not asked any more
MOST_REDIRECTS, MOST_IPS = 5, 4
CHUNK = 2**16  # bytes
REDIRECTS, TRY_AGAIN = (301, 302, 303, 307, 308), (408, 425, 429, 500, 502, 503, 504)
HEADERS = {
    "User-Agent": f"mlx-aimv2/{__version__}",
    "Accept": "image/*, */*;q=0.8",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
PRIVATE = Advice("{} allows it", "allow_private_addresses", True)
SLOW = Advice("raise {}", "max_download_s")


class _TryAgainError(Exception):
    """A failure that another attempt may mend.

    Attributes:
        wait_s: how long the server asks to wait; None if it does not say.
        answered: whether the server has answered at all.
    """

    def __init__(self, message: str, wait_s: float | None = None, answered: bool = False) -> None:
        super().__init__(message)
        self.wait_s, self.answered = wait_s, answered


@dataclass
class _Host:
    """The connections to a host, and how many of its last requests failed."""

    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(CONNECTIONS))
    failures: int = 0


class Web:
    """Downloads images; several threads may share it."""

    def __init__(self, options: SourceOptions) -> None:
        """Set the options; nothing is downloaded yet."""
        self._options = options
        self._limit = int(options.max_download_mb * 1e6)
        self._hosts: dict[str, _Host] = {}

    def image(self, address: str) -> SourceImage:
        """The image at an address, named without user and password."""
        return SourceImage(without_credentials(address), partial(self.get, address), waits=True)

    def get(self, address: str) -> bytes:
        """The content of an address.

        Raises:
            ImageError: the address is not valid or not allowed, or the server does not deliver.
            ImageTooLargeError: it has more bytes than allowed.
        """
        parsed = Address.parse(address)
        host = self._hosts.setdefault(parsed.host, _Host())
        with host.slots:
            if host.failures >= MOST_FAILURES:
                raise ImageError(f"{parsed.host} has failed {host.failures} times in a row: try later")
            content = self._attempt(parsed, host, monotonic() + self._options.max_download_s)
        if stand_in(content[:LOOK]) == WEB_PAGE:
            raise BrokenImageError("not an image, but a web page")
        return content

    def _attempt(self, address: Address, host: _Host, deadline: float) -> bytes:
        """Download, several times if the server is busy or does not answer."""
        attempt = 0
        while True:
            try:
                content = self._follow(address, deadline)
            except _TryAgainError as error:
                host.failures = 0 if error.answered else host.failures + 1
                wait_s = FIRST_WAIT_S * 2**attempt if error.wait_s is None else error.wait_s
                if error.wait_s is not None and wait_s > LONGEST_WAIT_S:
                    raise ImageError(
                        f"{error}: the server asks to wait {wait_s:,.0f} s: try later"
                    ) from error
                if monotonic() >= deadline:
                    raise ImageError(
                        f"{error}: given up after {self._options.max_download_s:g} s", SLOW
                    ) from error
                if attempt == RETRIES or monotonic() + wait_s >= deadline:
                    raise ImageError(f"{error}, also after {attempt + 1} attempts: try later") from error
                sleep(wait_s)
                attempt += 1
            else:
                host.failures = 0
                return content

    def _follow(self, address: Address, deadline: float) -> bytes:
        """Download from an address, or from where it redirects to."""
        credentials, origin = address.credentials, address.origin
        for _ in range(MOST_REDIRECTS + 1):
            with self._response(address, credentials, deadline) as response:
                location = response.getheader("Location") if response.status in REDIRECTS else None
                if location is None:
                    return _body(response, self._limit)
            try:
                target = address.joined(location.encode("latin-1").decode(errors="surrogateescape"))
            except ValueError as error:
                raise ImageError("the server redirects to what is no valid HTTP address") from error
            if not self._options.allow_redirects:
                advice = Advice("{} follows redirects", "allow_redirects", True)
                raise ImageError(f"the server redirects to {target}", advice)
            if (address.scheme, target.scheme) == ("https", "http"):
                raise ImageError(f"the server redirects to {target}, without encryption: not followed")
            if target.origin != origin:
                credentials = ""  # they are for the first server only
            address = target
        raise ImageError(f"the server redirects more than {MOST_REDIRECTS} times")

    @contextmanager
    def _response(
        self, address: Address, credentials: str, deadline: float
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer of a server, whose body is not read yet."""
        headers = {"Host": address.host_header, **HEADERS}
        if credentials:
            encoded = base64.b64encode(unquote(credentials).encode(errors="surrogateescape"))
            headers["Authorization"] = f"Basic {encoded.decode()}"
        try:
            with closing(self._connect(address, deadline)) as connected:
                connection = http.client.HTTPConnection(address.host, address.port)
                connection.sock = _Connection(connected, deadline)
                connection.request("GET", address.target, headers=headers)
                with closing(connection.getresponse()) as response:
                    yield response
        except TimeoutError as error:
            raise _TryAgainError(f"{address.host} does not answer in time") from error
        except ssl.SSLCertVerificationError as error:
            raise ImageError(
                f"the certificate of {address.host} is not valid: {error.verify_message}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise _TryAgainError(f"no answer from {address.host} ({reason})") from error

    def _connect(self, address: Address, deadline: float) -> socket.socket:
        """A connection to one of the checked IP addresses of a host."""
        if not (self._options.allow_private_addresses or address.has_web_port):
            raise ImageError(f"port {address.port} is not for web servers", PRIVATE)
        failure: OSError = OSError("it has no IP address")
        for ip in self._checked_ips(address)[:MOST_IPS]:
            try:
                connected = socket.create_connection((ip, address.port), _patience(deadline, CONNECT_S))
            except OSError as error:
                failure = error
                continue
            if address.scheme == "http":
                return connected
            try:
                return self._context.wrap_socket(connected, server_hostname=address.host)
            except BaseException:
                connected.close()
                raise
        raise failure

    def _checked_ips(self, address: Address) -> list[str]:
        try:
            ips = look_up(address.host, address.port)
        except UnicodeError as error:
            raise ImageError("not a valid address: check the name of the host") from error
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise
            raise ImageError(f"no host is called {address.host}") from error
        for ip in ips:
            if not (self._options.allow_private_addresses or is_public(ip)):
                where = "" if ip == address.host else f", its address is {ip}"
                raise ImageError(f"{address.host} is not in the public internet{where}", PRIVATE)
        return ips

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if not context.cert_store_stats()["x509_ca"]:  # Python for macOS comes without certificates
            try:
                import certifi
            except ImportError:
                return context
            context.load_verify_locations(certifi.where())
        return context


def look_up(host: str, port: int) -> list[str]:
    """The IP addresses of a host, in the order of the system's preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Connection(io.RawIOBase):
    """A socket for `http.client` whose waits are limited, each of them and all together."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected, self._deadline = connected, deadline

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(_patience(self._deadline, READ_S))
        self._connected.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connected.settimeout(_patience(self._deadline, READ_S))
        return self._connected.recv_into(buffer)

    def close(self) -> None:
        """Leave the socket open: `http.client` closes it before it reads the body."""


def _patience(deadline: float, longest: float) -> float:
    """Seconds to wait; raise TimeoutError after the deadline."""
    left = min(longest, deadline - monotonic())
    if left <= 0:
        raise TimeoutError
    return left


def _body(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The content of an answer, unpacked if the server has packed it.

    Raises:
        ImageError: it is no content.
        ImageTooLargeError: it has more than ``limit`` bytes, packed or not.
    """
    if response.status != HTTPStatus.OK:
        _refuse(response)
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise ImageError(f"the server packs it as {encoding[:20]!r}, which is not supported")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding != "identity" else None
    expected, received, content = response.length, 0, bytearray()
    if expected is not None and expected > limit:
        raise _too_large(f"{expected:,}", limit)
    while chunk := response.read(CHUNK):
        received += len(chunk)
        try:
            content += unpacker.decompress(chunk, limit + 1 - len(content)) if unpacker else chunk
        except zlib.error as error:
            raise BrokenImageError(f"damaged on the way: it cannot be unpacked as {encoding}") from error
        if max(received, len(content)) > limit:
            raise _too_large(f"more than {limit:,}", limit)
    if (expected is not None and received < expected) or (unpacker and not unpacker.eof):
        raise _TryAgainError(f"cut off after {received:,} bytes")
    return bytes(content)


def _too_large(count: str, limit: int) -> ImageTooLargeError:
    allowed = f"but {limit / 1e6:g} MB are allowed"
    return ImageTooLargeError(f"it has {count} bytes, {allowed}", Advice("raise {}", "max_download_mb"))


def _refuse(response: http.client.HTTPResponse) -> None:
    """Raise the error for a status other than 200."""
    try:
        status = f"HTTP {response.status} {HTTPStatus(response.status).phrase}"
    except ValueError:
        status = f"HTTP {response.status}"
    if response.status not in TRY_AGAIN:
        raise ImageError(f"the server answers {status}")
    wait_s = _seconds(response.getheader("Retry-After") or "")
    raise _TryAgainError(f"the server answers {status}", wait_s, answered=True)


def _seconds(retry_after: str) -> float | None:
    """The value of a header `Retry-After` in seconds; None if it is not valid."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except (TypeError, ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
