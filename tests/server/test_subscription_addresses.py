"""What a webhook's address may be: the text of it, and where its name leads when it is called."""

from __future__ import annotations

import socket

import pytest
from yarl import URL

from penstock.core.errors import WebhooksOff, WebhookUrlRejected
from penstock.server.subscriptions.addresses import WebhookRules

OFF = WebhookRules()
LOOPBACK = WebhookRules(reach="loopback")
PUBLIC = WebhookRules(reach="public")
INNER = WebhookRules(reach="public", hosts=frozenset({"worker.internal", "10.0.0.7"}))
ONLY_INNER = WebhookRules(hosts=frozenset({"worker.internal"}))

LOCAL = [
    "http://127.0.0.1:8000/hook",
    "http://localhost/",
    "https://[::1]:8443/x",
    "http://127.9.9.9",
    "http://[::ffff:127.0.0.1]/",
]
OUTER = ["https://example.com/hook", "https://93.184.215.14:8443/x", "https://[2606:4700::1111]/"]
INWARD = [
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://198.18.0.1/",
    "https://192.0.2.1/",
    "https://[::]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fc00::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::7f00:1]/",
    "https://[2002:a00:1::]/",
    "https://[64:ff9b::a00:1]/",
    "https://[64:ff9b:1::a00:1]/",
]
NO_ADDRESS = [
    "",
    "hook",
    "/hook",
    "//example.com/hook",
    "ftp://example.com/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "http:///x",
    "https://",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://127.0.0.1@example.com:1/",
    "https://example.com/#frag",
    "https://exa mple.com/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/\r\nHost: x",
    " https://example.com/",
    "https://example.com:99999/",
    "https://example.com:0/",
    "https://[::1/",
    "https://example.com/" + "x" * 2048,
    "https://\ud800.com/",
]


@pytest.mark.parametrize("url", LOCAL + OUTER)
def test_nothing_is_called_when_webhooks_are_off(url: str) -> None:
    with pytest.raises(WebhooksOff):
        OFF.check(url)


@pytest.mark.parametrize("url", LOCAL)
def test_loopback_calls_this_machine(url: str) -> None:
    assert LOOPBACK.check(url) == URL(url)


@pytest.mark.parametrize("url", OUTER + INWARD + NO_ADDRESS)
def test_loopback_calls_nothing_else(url: str) -> None:
    with pytest.raises(WebhookUrlRejected):
        LOOPBACK.check(url)


@pytest.mark.parametrize("url", OUTER)
def test_public_calls_https_on_the_public_internet(url: str) -> None:
    assert PUBLIC.check(url) == URL(url)
    with pytest.raises(WebhookUrlRejected):
        PUBLIC.check(url.replace("https:", "http:"))


@pytest.mark.parametrize("url", [u.replace("http:", "https:") for u in LOCAL] + INWARD + NO_ADDRESS)
def test_public_calls_nothing_within(url: str) -> None:
    with pytest.raises(WebhookUrlRejected):
        PUBLIC.check(url)


@pytest.mark.parametrize(
    "host", ["2130706433", "127.1", "0x7f.1", "0x7f000001", "0177.0.0.1", "10.1"]
)
def test_an_address_in_disguise_is_refused(host: str) -> None:
    for rules in (PUBLIC, LOOPBACK):
        with pytest.raises(WebhookUrlRejected):
            rules.check(f"https://{host}/")


@pytest.mark.parametrize("url", ["http://worker.internal:8080/x", "http://WORKER.internal./x"])
def test_a_host_the_operator_named_is_called_whatever_its_address(url: str) -> None:
    for rules in (INNER, ONLY_INNER):
        rules.check(url)
        with rules.open_socket(URL(url), info("10.0.0.7")):
            pass
    INNER.check("http://10.0.0.7/")
    for other in ("http://worker2.internal/", "http://127.0.0.1/"):
        with pytest.raises(WebhookUrlRejected):
            INNER.check(other)
        with pytest.raises(WebhookUrlRejected):
            ONLY_INNER.check(other)


def info(address: str) -> tuple[int, int, int, str, tuple[object, ...]]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    rest = (443, 0, 0) if ":" in address else (443,)
    return (family, socket.SOCK_STREAM, 0, "", (address, *rest))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "0.0.0.0",
    ],
)
def test_a_name_that_leads_within_is_not_connected_to(address: str) -> None:
    with pytest.raises(PermissionError):
        PUBLIC.open_socket(URL("https://example.com/"), info(address))


def test_a_name_that_leads_out_is_connected_to() -> None:
    with PUBLIC.open_socket(URL("https://example.com/"), info("93.184.215.14")):
        pass
    with pytest.raises(PermissionError):
        LOOPBACK.open_socket(URL("http://localhost/"), info("93.184.215.14"))
