"""HTTP(S) addresses: parts, credentials, public and other networks."""

from __future__ import annotations

import pytest

from mlx_aimv2.errors import ImageError
from mlx_aimv2.sources.addresses import Address, is_address, is_public, without_credentials


@pytest.mark.parametrize(
    ("text", "shown", "host", "port", "target"),
    [
        ("http://a.example", "http://a.example/", "a.example", 80, "/"),
        ("HTTPS://A.example:443/x?y=1#z", "https://a.example/x?y=1", "a.example", 443, "/x?y=1"),
        ("http://a.example:8080/x", "http://a.example:8080/x", "a.example", 8080, "/x"),
        ("http://[2606:4700::1]:81/", "http://[2606:4700::1]:81/", "2606:4700::1", 81, "/"),
        ("http://bücher.example/ä b.jpg", "http://xn--bcher-kva.example/%C3%A4%20b.jpg",
         "xn--bcher-kva.example", 80, "/%C3%A4%20b.jpg"),
        ("http://a.example/a%20b\udcff.jpg", "http://a.example/a%20b%FF.jpg", "a.example", 80, "/a%20b%FF.jpg"),
        ("http://a.example?q=[1]", "http://a.example/?q=[1]", "a.example", 80, "/?q=[1]"),
    ],
)  # fmt: skip
def test_parts(text: str, shown: str, host: str, port: int, target: str) -> None:
    address = Address.parse(text)
    assert (str(address), address.host, address.port, address.target) == (shown, host, port, target)


@pytest.mark.parametrize(
    "text",
    ["http://", "http:///x.jpg", "http://a.example:x/", "http://a.example:0/", "http://a.example:70000/",
     "http://[::1/", "http://a b/", "http://a.example\\@b.example/", f"http://{'ä' * 99}.example/"],
)  # fmt: skip
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(ImageError, match=r"^not a valid address: check the name of the host and the port$"):
        Address.parse(text)


@pytest.mark.parametrize(
    "text", ["http://a.example/x\r\nHost: b", "http://a.example/\t", "http://a\x7f.example/"]
)
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ImageError, match="a line break or another control character"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@a.example/x@2.png", "https://a.example/x@2.png"),
        ("https://me:se@cret@a.example/x", "https://a.example/x"),
        ("https://me:se/cret@a.example/x", "https://a.example/x"),
        ("https://a.example:80/@me/x.jpg", "https://a.example:80/@me/x.jpg"),
        ("https://a.example/@me/x:y@2.jpg", "https://a.example/@me/x:y@2.jpg"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_credentials_are_kept_apart() -> None:
    address = Address.parse("http://me:secret@a.example/")
    assert address.credentials == "me:secret"
    assert "secret" not in str(address)


def test_redirects_are_relative_to_the_address() -> None:
    address = Address.parse("http://a.example:8080/x/y.jpg")
    assert str(address.joined("../z.jpg?q")) == "http://a.example:8080/z.jpg?q"
    assert str(address.joined("//b.example/z")) == "http://b.example/z"
    with pytest.raises(ImageError, match=r"^not an HTTP address$"):
        address.joined("file:///etc/passwd")


def test_only_http_is_an_address() -> None:
    assert is_address("http://a") and is_address("HTTPS://a")
    assert not any(map(is_address, ("ftp://a", "http:/a", "photo.jpg", "file:///a", "")))


@pytest.mark.parametrize("port", [80, 443, 1024, 8080])
def test_ports_of_web_servers(port: int) -> None:
    assert Address.parse(f"http://a.example:{port}/").has_web_port


@pytest.mark.parametrize("port", [22, 25, 111, 1023])
def test_ports_of_other_services(port: int) -> None:
    assert not Address.parse(f"http://a.example:{port}/").has_web_port


@pytest.mark.parametrize(
    "ip",
    ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"],
)
def test_public_addresses(ip: str) -> None:
    assert is_public(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.9", "192.0.2.1", "192.88.99.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:a00:1", "fe80::1", "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2001:db8::1", "2001::1", "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "3fff::1", "5f00::1", "4000::1",
    ],
)  # fmt: skip
def test_other_networks_are_not_public(ip: str) -> None:
    assert not is_public(ip)
