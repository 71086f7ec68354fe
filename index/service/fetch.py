"""Fetch an image from a URL: only from hosts that were allowed, only from public addresses, no further."""

import http.client
import ipaddress
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from .settings import Refused

TIMEOUT = 5.0  # seconds, for each step
PORTS = {"http": 80, "https": 443}
GLOBAL = ipaddress.ip_network("2000::/3")  # of IPv6: not NAT64 (64:ff9b::), mapped or compatible addresses
TUNNELS = [ipaddress.ip_network(net) for net in ("2002::/16", "2001::/32", "192.88.99.0/24")]
"""Addresses that carry an IPv4 address inside: what is behind them is not what they look like."""
ISATAP = (0x00005EFE, 0x02005EFE)  # the third quarter of an IPv6 address that ends in an IPv4 one


def fetch(url: str, hosts: tuple[str, ...], most: int) -> bytes:
    """At most `most` bytes. The address that was checked is the one that is connected to. Raises Refused."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise Refused(400, "image_url: not a URL") from None
    if parts.scheme not in PORTS or not host:
        raise Refused(403, "image_url: only http and https are fetched; send the image itself as 'image', in base64")
    named = host if port == PORTS[parts.scheme] else f"{host}:{port}"
    if named not in hosts or parts.username or parts.password:
        raise Refused(403, f"image_url: {named[:100]} is not allowed here (--allow-host); send the image as 'image'")
    address = resolve(host, port)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(c <= " " or c == "\x7f" for c in path):
        raise Refused(400, "image_url: a character that belongs percent-encoded")
    connection = _Pinned(parts.scheme, host, port, address)
    try:
        connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "mmfilter"})
        return _body(connection.getresponse(), most)
    except (OSError, http.client.HTTPException) as error:
        raise Refused(502, f"image_url: {named} does not answer ({type(error).__name__})") from error
    finally:
        connection.close()


def addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, [] unless all of them are public. Raises OSError, UnicodeError."""
    found = dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(found) if all(map(public, found)) else []


def resolve(host: str, port: int) -> str:
    """An address of the host; all of its addresses must be public. Raises Refused."""
    try:
        found = addresses(host, port)
    except (OSError, UnicodeError) as error:
        raise Refused(502, f"image_url: {host[:100]} cannot be found") from error
    if not found:
        raise Refused(403, f"image_url: {host[:100]} is at an address that is not public, and is not asked")
    return sorted(found)[0]


def public(address: str) -> bool:
    """Whether an address is on the open network: not loopback, private, link-local, multicast, or a tunnel."""
    try:
        ip: Any = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    tunnel = any(ip in net for net in TUNNELS if net.version == ip.version)
    if ip.version == 6:
        tunnel |= ip not in GLOBAL or int(ip) >> 32 & 0xFFFFFFFF in ISATAP
    return bool(ip.is_global and not ip.is_multicast and not tunnel)


class _Pinned(http.client.HTTPConnection):
    """Connects to the address that was checked, whatever the name means by then; TLS still checks the name."""

    def __init__(self, scheme: str, host: str, port: int, address: str) -> None:
        super().__init__(host, port, timeout=TIMEOUT)
        self.scheme, self.address = scheme, address

    def connect(self) -> None:
        self.sock = socket.create_connection((self.address, self.port), TIMEOUT)
        if self.scheme == "https":
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
    if response.status != 200:  # a redirect as well: where it leads was not allowed
        raise Refused(502, f"image_url: it answers {response.status}, which is not followed")
    data, until = b"", time.monotonic() + 3 * TIMEOUT
    while part := response.read1(1 << 16):
        data += part
        if len(data) > most:
            raise Refused(413, f"image_url: over {most:,} bytes")
        if time.monotonic() > until:
            raise Refused(502, "image_url: it answers too slowly")
    return data
