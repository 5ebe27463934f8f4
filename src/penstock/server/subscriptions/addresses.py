"""Where webhooks may go. A subscriber chooses the address and the server calls it, from inside its
own network: what may be called is decided here, twice.

`WebhookRules.check` judges the text when somebody subscribes and again before each delivery.
`WebhookRules.open_socket` judges the address that is about to be connected to, after the name was
looked up, so that a name that resolves elsewhere later (or a spelling of an address that only the
resolver understands) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, Final, Literal

from yarl import URL  # the parser of the client that will call: two parsers could disagree

from penstock.core.errors import WebhooksOff, WebhookUrlRejected
from penstock.core.limits import MAX_URL_BYTES

Reach = Literal["off", "loopback", "public"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRules:
    """Which webhooks this server calls.

    `reach`: `off` none; `loopback` only this machine's own (`http` will do); `public` only
    `https` to addresses of the public internet. `hosts` are called besides, by `http` or `https`
    and whatever their address: workers inside the operator's own network.
    """

    reach: Reach = "off"
    hosts: frozenset[str] = frozenset()

    @property
    def is_off(self) -> bool:
        """Whether no webhook can be called at all."""
        return self.reach == "off" and not self.hosts

    def check(self, text: str) -> URL:
        """Give the address to call. Raises WebhooksOff, WebhookUrlRejected."""
        if self.is_off:
            raise WebhooksOff("the setting 'webhooks' is 'off'")
        url = _parsed(text)
        host = _host(url)
        if host in self.hosts:
            return url
        address = _literal(host)
        is_local = host == "localhost" or (address is not None and _plain(address).is_loopback)
        if self.reach == "public":
            if url.scheme != "https":
                raise WebhookUrlRejected("is not https")
            if is_local or _looks_numeric(host, address):
                raise WebhookUrlRejected("names this machine, or an address in disguise")
            if address is not None and not self._is_open(address):
                raise WebhookUrlRejected("names an address that is not public")
        elif self.reach == "off" or not is_local:
            raise WebhookUrlRejected("names a host that this server does not call")
        return url

    def open_socket(self, url: URL, info: AddressInfo) -> socket.socket:
        """Open a socket towards what the address's host resolved to. Raises PermissionError."""
        family, kind, protocol, _, address = info
        if _host(url) not in self.hosts:
            found = _literal(str(address[0]).partition("%")[0])
            if found is None or not self._is_open(found):
                raise PermissionError(f"{address[0]} is an address that is not called")
        return socket.socket(family, kind, protocol)

    def _is_open(self, address: Address) -> bool:
        plain = _plain(address)
        if self.reach == "loopback":
            return plain.is_loopback
        return self.reach == "public" and _is_public(address) and _is_public(plain)


def _parsed(text: str) -> URL:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_URL_BYTES:
        raise WebhookUrlRejected(f"has more than {MAX_URL_BYTES} bytes")
    if not text.isprintable() or any(character in text for character in " \\"):
        raise WebhookUrlRejected("has characters that no address has")
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        raise WebhookUrlRejected("is no address") from None
    if url.scheme not in ("http", "https") or not url.host or not port:
        raise WebhookUrlRejected("is no http or https address")
    if url.user is not None or url.password is not None:
        raise WebhookUrlRejected("has a user or a password")
    if url.raw_fragment:
        raise WebhookUrlRejected("has a fragment")
    return url


def _host(url: URL) -> str:
    return (url.host or "").lower().rstrip(".")


def _looks_numeric(host: str, address: Address | None) -> bool:
    """Whether a resolver would read the name as an IPv4 address written in another way."""
    last = host.rsplit(".", 1)[-1]
    return address is None and (last.isdecimal() or last.startswith("0x"))


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, NAT64, 6to4, Teredo), or itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    _, teredo = address.teredo or (None, None)
    return address.ipv4_mapped or address.sixtofour or teredo or address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return True  # its IPv4 address is judged beside it
        return address in _GLOBAL_UNICAST and address.is_global
    return address.is_global and not address.is_multicast
