"""Where a service is: what the environment must say, and addresses that are never called."""

import socket

import pytest

from rerank_batch.errors import ConfigError, ServiceError
from rerank_batch.services.address import SERVICES, Unresolved, address_of

pytestmark = pytest.mark.usefixtures("environment")

SECRET = "canary0key0in0the0mine"


def resolving(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    """Every name stands for these addresses."""

    def found(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("family", ["cohere", "voyage", "jina", "llm"])
def test_public_services_have_an_address_and_need_a_key(family, environment):
    variables = SERVICES[family].key_variables
    with pytest.raises(ConfigError, match=" or ".join(variables)):
        address_of(family)
    environment.setenv(variables[-1], SECRET)
    address = address_of(family)
    assert address.url("1.2.3.4", "/x").startswith("https://1.2.3.4:443/")
    assert SECRET not in repr(address)
    assert address.key == SECRET


@pytest.mark.parametrize("family", ["tei", "vllm", "infinity"])
def test_own_services_need_an_address_and_may_have_a_key(family, environment):
    with pytest.raises(ConfigError, match=SERVICES[family].url_variable):
        address_of(family)
    environment.setenv(SERVICES[family].url_variable, "https://gpu.internal:8443/models/")
    address = address_of(family)
    assert address.key is None
    assert address.origin == "gpu.internal:8443"
    assert address.url("10.0.0.7", "/rerank") == "https://10.0.0.7:8443/models/rerank"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://flüsse.example", "xn--flsse-lva.example"),
        ("https://host:443", "host"),
        ("http://host:443", "host:443"),
        ("https://[fd00::7]:8443", "[fd00::7]:8443"),
    ],
)
def test_the_host_header_is_that_of_the_url(environment, url, origin):
    environment.setenv("TEI_BASE_URL", url)
    assert address_of("tei").origin == origin


def test_an_llm_at_another_address_needs_no_key(environment):
    environment.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert address_of("llm").key is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"https://user:{SECRET}@host", "credentials in a URL are refused"),
        (f"https://{SECRET}@host:99999", "TEI_BASE_URL is not a URL"),
        ("ftp://host", "no https:// URL"),
        ("host:8080", "no https:// URL"),
        ("https://", "no https:// URL"),
        ("https://host/path?model=x", "must end with its path"),
        ("https://host:port", "TEI_BASE_URL is not a URL"),
        ("https://a..b", "no name of a host"),
    ],
)
def test_a_url_that_cannot_be_used_names_its_variable_and_no_secret(environment, url, said):
    environment.setenv("TEI_BASE_URL", url)
    with pytest.raises(ConfigError, match=said) as failure:
        address_of("tei")
    assert "TEI_BASE_URL" in str(failure.value)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("key", [f"{SECRET}\r\nX-Evil: 1", f"{SECRET} ", f"{SECRET}é"])
def test_a_key_that_no_header_carries_is_refused_unseen(environment, key):
    environment.setenv("CO_API_KEY", key)
    with pytest.raises(ConfigError, match="CO_API_KEY") as failure:
        address_of("cohere")
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize(
    "ip",
    [
        "169.254.169.254",
        "169.254.170.2",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "224.0.0.1",
        "ff02::1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_addresses_that_are_never_called(environment, ip):
    environment.setenv("TEI_BASE_URL", "https://innocent.example")
    resolving(environment, "93.184.216.34", ip)
    with pytest.raises(ServiceError, match="never called") as failure:
        address_of("tei").resolve()
    assert "innocent.example" in str(failure.value)


@pytest.mark.parametrize("ip", ["93.184.216.34", "10.1.2.3", "fd00::7", "127.0.0.1"])
def test_addresses_that_may_be_called(environment, ip):
    environment.setenv("TEI_BASE_URL", "https://gpu.internal")
    resolving(environment, ip)
    assert address_of("tei").resolve() == (ip,)


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "https://[fd00:ec2::254]/"])
def test_a_url_may_name_such_an_address_itself(environment, url):
    environment.setenv("TEI_BASE_URL", url)
    with pytest.raises(ServiceError, match="never called"):
        address_of("tei").resolve()


@pytest.mark.parametrize("ip", ["10.1.2.3", "93.184.216.34", "2606:2800:220:1::1"])
def test_plain_http_stays_on_this_machine(environment, ip):
    environment.setenv("TEI_BASE_URL", "http://gpu.internal:8080")
    resolving(environment, "127.0.0.1", ip)
    with pytest.raises(ServiceError, match="set TEI_BASE_URL to an https:// URL"):
        address_of("tei").resolve()
    resolving(environment, "127.0.0.1", "::1")
    assert address_of("tei").resolve() == ("127.0.0.1", "::1")


def test_a_name_without_an_address(environment):
    environment.setenv("TEI_BASE_URL", "https://gpu.internal")

    def nothing(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    environment.setattr(socket, "getaddrinfo", nothing)
    with pytest.raises(Unresolved, match=r"gpu\.internal has no address"):
        address_of("tei").resolve()
