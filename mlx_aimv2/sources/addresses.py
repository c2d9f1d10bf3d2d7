"""HTTP(S) addresses: their parts, and which of them lead into the public internet."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from ..errors import ImageError

PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024  # below are other services than the web, except for `PORTS`
KEPT = "%/:=&?~+!$,;'@()*[]|"  # characters of an address that need no escape
# The part with name and password; a password may wrongly hold a slash.
CREDENTIALS = re.compile(r"(?<=//)(?:[^/?#]*@|[^/?#@:\[]*:\d*[^\d/?#@][^@]*@)")
IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")
IPV6_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
SPECIAL = (  # networks that some versions of Python take for public ones
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv6Network("3fff::/20"),
)


def is_address(name: str) -> bool:
    """Whether a name of a user is an HTTP(S) address."""
    return name[:8].lower().startswith(("http://", "https://"))


def without_credentials(address: str) -> str:
    """An address as it may be shown: without name and password."""
    return CREDENTIALS.sub("", address, count=1)


@dataclass(frozen=True)
class Address:
    """The parts of an address.

    Attributes:
        scheme: `http` or `https`.
        host: a name in ASCII, or an IP address without brackets.
        port: a number.
        target: path and query, with escapes.
        credentials: `name:password`; empty for none.
    """

    scheme: str
    host: str
    port: int
    target: str
    credentials: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse an address.

        Raises:
            ImageError: it is not valid, or not of HTTP(S).
        """
        if not is_address(text):
            raise ImageError("not an HTTP address")
        if any(character < " " or character == "\x7f" for character in text):
            raise ImageError("not a valid address: it has a line break or another control character")
        try:
            parts = urlsplit(text)
            host = (parts.hostname or "").encode("idna" if not (parts.hostname or "").isascii() else "ascii")
            port = PORTS[parts.scheme] if parts.port is None else parts.port
        except ValueError as error:  # also of IDNA
            raise ImageError("not a valid address: check the name of the host and the port") from error
        if not re.fullmatch(rb"[\w.:%~-]+", host) or "\\" in parts.netloc or not 0 < port < 2**16:
            raise ImageError("not a valid address: check the name of the host and the port")
        query = f"?{parts.query}" if parts.query else ""
        target = quote(f"{parts.path or '/'}{query}", KEPT, errors="surrogateescape")
        credentials = parts.netloc.rpartition("@")[0]
        return cls(parts.scheme, host.decode(), port, target, credentials)

    def joined(self, location: str) -> Address:
        """The address that a redirect from this one leads to.

        Raises:
            ImageError: it is not valid.
        """
        return Address.parse(urljoin(str(self), location))

    @property
    def origin(self) -> tuple[str, str, int]:
        """What stays the same on one server."""
        return self.scheme, self.host, self.port

    @property
    def host_header(self) -> str:
        """The host, and the port if it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def has_web_port(self) -> bool:
        """Whether the port may belong to a web server."""
        return self.port in PORTS.values() or self.port >= FIRST_FREE_PORT

    def __str__(self) -> str:
        """The address without credentials."""
        return f"{self.scheme}://{self.host_header}{self.target}"


def is_public(ip: str) -> bool:
    """Whether an IP address belongs to the public internet, also as an IPv4 address within an IPv6 address."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in IPV6_NAT64:
            inner = ipaddress.IPv4Address(int(address) % 2**32)
        if inner is not None:
            return is_public(str(inner))
        if address not in IPV6_PUBLIC:
            return False
    special = any(address.version == network.version and address in network for network in SPECIAL)
    return address.is_global and not (address.is_multicast or address.is_reserved or special)
