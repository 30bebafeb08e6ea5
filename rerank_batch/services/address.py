"""Where a service is and the key to it: both from the environment, both checked before any call.

A name is resolved here and calls go to the addresses that were checked, so that a name which means
something else a moment later leads nowhere. Knows nothing of what is asked of a service.
"""

import ipaddress
import os
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rerank_batch.errors import ConfigError, ServiceError

_STANDARD_PORTS = {"https": 443, "http": 80}
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class ServiceVariables:
    """Where the environment says how to reach a family, and where it is by default.

    At its default address a family needs a key; elsewhere only if ``needs_key``.
    """

    url_variable: str
    key_variables: tuple[str, ...]
    url: str | None = None
    needs_key: bool = False


SERVICES: dict[str, ServiceVariables] = {
    "cohere": ServiceVariables(
        "COHERE_BASE_URL", ("CO_API_KEY", "COHERE_API_KEY"), "https://api.cohere.com", True
    ),
    "voyage": ServiceVariables(
        "VOYAGE_BASE_URL", ("VOYAGE_API_KEY",), "https://api.voyageai.com", True
    ),
    "jina": ServiceVariables("JINA_BASE_URL", ("JINA_API_KEY",), "https://api.jina.ai", True),
    "tei": ServiceVariables("TEI_BASE_URL", ("TEI_API_KEY",)),
    "vllm": ServiceVariables("VLLM_BASE_URL", ("VLLM_API_KEY",)),
    "infinity": ServiceVariables("INFINITY_BASE_URL", ("INFINITY_API_KEY",)),
    "llm": ServiceVariables("OPENAI_BASE_URL", ("OPENAI_API_KEY",), "https://api.openai.com/v1"),
}


class Unresolved(ServiceError):
    """The name of a service has no address, for now or for good."""


@dataclass(frozen=True)
class Address:
    """A service: scheme, host, port and the path that all its paths begin with.

    ``variable`` is what it was read from, where that is none of `SERVICES`.
    """

    family: str
    scheme: str
    host: str
    port: int
    prefix: str = field(repr=False)
    key: str | None = field(repr=False)
    variable: str = ""

    @property
    def origin(self) -> str:
        """What the Host header says, whatever address is called."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _STANDARD_PORTS[self.scheme] else f"{host}:{self.port}"

    def url(self, ip: str, path: str) -> str:
        """The URL of a path at one of the addresses that `resolve` gave."""
        host = f"[{ip}]" if ":" in ip else ip
        return f"{self.scheme}://{host}:{self.port}{self.prefix}{path}"

    def resolve(self) -> tuple[str, ...]:
        """The addresses that the name stands for now, every one of them checked.

        Raises:
            Unresolved: the name has none.
            ServiceError: one of them is never called: link-local, multicast, a cloud's metadata
                service, or beyond this machine over plain http.
        """
        try:
            entries = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unresolved(f"{self.family}: {self.host} has no address: {error}") from None
        ips = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
        for ip in ips:
            self._check(ip)
        return ips

    def _check(self, ip: str) -> None:
        meant = _unwrapped(ipaddress.ip_address(ip))
        if _is_never_called(meant):
            raise ServiceError(
                f"{self.family}: {self.host} is {ip}, an address that is never called: "
                "link-local, multicast, unspecified, or a cloud's metadata service"
            )
        if self.scheme == "http" and not meant.is_loopback:
            raise ServiceError(
                f"{self.family}: {self.host} is {ip}; beyond this machine only https is spoken, "
                f"set {self.variable or SERVICES[self.family].url_variable} to an https:// URL"
            )


def address_of(family: str) -> Address:
    """The address and the key of a family, as the environment gives them.

    Raises:
        ConfigError: a variable is missing or cannot be used; the message names it.
    """
    variables = SERVICES[family]
    given = os.environ.get(variables.url_variable) or None
    url = given or variables.url
    if url is None:
        raise ConfigError(f"set {variables.url_variable} to the URL of the {family} service")
    key = next((os.environ[name] for name in variables.key_variables if os.environ.get(name)), None)
    if key is None and (variables.needs_key or given is None):
        raise ConfigError(f"set {' or '.join(variables.key_variables)} to the key of {family}")
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"{' or '.join(variables.key_variables)}: the key has spaces or characters that no "
            "header can carry"
        )
    return _parsed(family, url, key, variables.url_variable if given else family)


def hook_address(variable: str) -> Address:
    """The address behind a variable whose whole value is a secret: nothing of it is repeated.

    Unlike a service's, it may end with a query: that is where some hooks have their key.

    Raises:
        ConfigError: the variable is missing or cannot be used.
    """
    if not (url := os.environ.get(variable, "")):
        raise ConfigError(f"set {variable} to the URL of the webhook")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError):
        raise ConfigError(f"{variable} is no URL") from None
    if parts.scheme not in _STANDARD_PORTS or not host or "@" in parts.netloc:
        raise ConfigError(f"{variable} must be an https:// URL without a name and password in it")
    where = parts.path + (f"?{parts.query}" if parts.query else "")
    port = port or _STANDARD_PORTS[parts.scheme]
    return Address("webhook", parts.scheme, host, port, where, None, variable)


def _parsed(family: str, url: str, key: str | None, source: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{source} is not a URL") from None
    # Nothing of the URL is repeated before this: what stands before the @ is a secret.
    if "@" in url:
        raise ConfigError(
            f"{source}: credentials in a URL are refused; "
            f"give the key as {SERVICES[family].key_variables[0]}"
        )
    if parts.scheme not in _STANDARD_PORTS or not parts.hostname:
        raise ConfigError(f"{source}: {url!r} is no https:// URL")
    if parts.query or parts.fragment:
        raise ConfigError(f"{source}: {url!r} must end with its path")
    try:
        host = parts.hostname.encode("idna").decode()
    except UnicodeError:
        raise ConfigError(f"{source}: {parts.hostname!r} is no name of a host") from None
    port = port or _STANDARD_PORTS[parts.scheme]
    return Address(family, parts.scheme, host, port, parts.path.rstrip("/"), key)


_METADATA: frozenset[_Ip] = frozenset(
    ipaddress.ip_address(ip)
    for ip in (
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle Cloud
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


def _unwrapped(ip: _Ip) -> _Ip:
    """The IPv4 address inside an IPv6 address that only carries one."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _is_never_called(ip: _Ip) -> bool:
    return (
        ip.is_link_local
        or ip.is_multicast
        or ip.is_unspecified
        or ip in _THIS_NETWORK
        or ip in _METADATA
    )
