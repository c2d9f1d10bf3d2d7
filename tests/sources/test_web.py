"""Images at addresses: refusals, attempts and bounds, with a server on this machine and faked name servers."""

from __future__ import annotations

import gzip
import io
import shutil
import socket
import ssl
import subprocess
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_aimv2.errors import ImageError, ImageTooLargeError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.processing.source_image import SourceImage
from mlx_aimv2.sources import web
from mlx_aimv2.sources.addresses import Address
from mlx_aimv2.sources.find import find_sources
from mlx_aimv2.sources.options import SourceOptions
from mlx_aimv2.sources.web import Web

PUBLIC = "93.184.216.34"


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "png")
    return file.getvalue()


PNG = png(7)
Answer = Callable[[BaseHTTPRequestHandler], object]


class Server:
    """A server with an answer for each path, which counts and keeps its requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with server.lock:
                    server.requests.append(
                        (self.path, {name.lower(): text for name, text in self.headers.items()})
                    )
                with suppress(OSError):  # the client is gone
                    server.answers[self.path.partition("?")[0]](self)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=lambda: server.http.serve_forever(poll_interval=0.01))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client wanted to wait between attempts."""
    waited: list[float] = []
    monkeypatch.setattr(web, "sleep", waited.append)
    return waited


def reply(body: bytes = b"", status: int = 200, length: int | str | None = None, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, text in headers.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


def in_turn(*answers: Answer) -> Answer:
    remaining = list(answers)
    return lambda handler: remaining.pop(0)(handler)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def local(**options: Any) -> Web:
    return Web(SourceOptions(allow_private_addresses=True, **options))


def refusal(client: Web, address: str, kind: type[ImageError] = ImageError) -> str:
    with pytest.raises(kind) as caught:
        client.get(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_addresses_and_files_are_read_in_the_order_of_the_list(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(png(1))
    server.answers = {"/a": reply(png(2)), "/b.tar": reply(png(3))}
    names = [
        f"{server.url}/a?x=[*]",
        str(tmp_path / "file.png"),
        f"{server.url}/b.tar",
        f"{server.url}/a?x=[*]",
    ]
    found = find_sources(names, options=SourceOptions(allow_private_addresses=True))
    assert found.names == names
    assert found.files == [None, names[1], None, None]
    assert [int(np.asarray(decode_image(image))[0, 0, 0]) for image in found.images] == [2, 1, 3, 2]
    assert [image.waits for image in found.images if isinstance(image, SourceImage)] == [True] * 3
    assert server.paths[0] == "/a?x=[*]"


def test_credentials_are_sent_and_never_shown(server: Server) -> None:
    server.answers = {"/x": reply(PNG), "/gone": reply(status=404)}
    address = server.url.replace("//", "//me:s%40cret@")
    (found,) = find_sources([f"{address}/x"], options=SourceOptions(allow_private_addresses=True)).images
    assert str(found) == f"{server.url}/x"
    decode_image(found)
    assert server.requests[0][1]["authorization"] == "Basic bWU6c0BjcmV0"
    assert server.requests[0][1]["host"] == f"127.0.0.1:{server.port}"
    assert "cret" not in refusal(local(), f"{address}/gone")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1/", "127.0.0.1 is not in the public internet"),
        ("http://2130706433/", "2130706433 is not in the public internet, its address is 127.0.0.1"),
        ("http://0x7f.1/", "0x7f.1 is not in the public internet, its address is 127.0.0.1"),
        ("http://[::1]/", "::1 is not in the public internet"),
        ("http://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1 is not in the public internet"),
        ("http://169.254.169.254/latest", "169.254.169.254 is not in the public internet"),
        ("http://93.184.216.34:22/", "port 22 is not for web servers"),
    ],
)  # fmt: skip
def test_private_addresses_are_refused(address: str, message: str) -> None:
    if "[" in address and not socket.has_ipv6:
        pytest.skip("no IPv6")
    assert refusal(Web(SourceOptions()), address) == f"{message}: allow_private_addresses=True allows it"


def test_a_host_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "look_up", lambda host, port: [PUBLIC, "10.0.0.1"])
    assert "a.example is not in the public internet, its address is 10.0.0.1" in refusal(
        Web(SourceOptions()), "http://a.example/"
    )


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, server: Server) -> Counter[str]:
    """Let every host have a public address at first and a private one later; all lead to the server.

    Counts how often a host is looked up, and the connections to each IP address.
    """
    counts: Counter[str] = Counter()

    def look_up(host: str, port: int) -> list[str]:
        counts[host] += 1
        return [PUBLIC] if counts[host] == 1 else ["127.0.0.1"]

    connect = socket.create_connection

    def create_connection(place: tuple[str, int], timeout: float) -> socket.socket:
        counts[place[0]] += 1
        return connect(("127.0.0.1", server.port), timeout)

    monkeypatch.setattr(web, "look_up", look_up)
    monkeypatch.setattr(web.socket, "create_connection", create_connection)
    return counts


def test_the_checked_address_is_the_one_that_is_connected_to(server: Server, internet: Counter[str]) -> None:
    server.answers = {"/": reply(PNG)}
    client = Web(SourceOptions())
    assert client.get("http://a.example/") == PNG
    assert internet == {"a.example": 1, PUBLIC: 1}
    assert server.requests[0][1]["host"] == "a.example"
    assert "a.example is not in the public internet" in refusal(client, "http://a.example/")
    assert len(server.requests) == 1


def test_redirects_are_refused_unless_allowed(server: Server) -> None:
    server.answers = {"/a": reply(status=302, Location="/b"), "/b": reply(PNG)}
    message = f"the server redirects to {server.url}/b: allow_redirects=True follows redirects"
    assert refusal(local(), f"{server.url}/a") == message
    assert local(allow_redirects=True).get(f"{server.url}/a") == PNG


def test_every_redirect_is_checked(server: Server, internet: Counter[str]) -> None:
    server.answers = {
        "/private": reply(status=301, Location="http://127.0.0.1/"),
        "/file": reply(status=307, Location="file:///etc/passwd"),
        "/invalid": reply(status=308, Location="http://[/"),
    }
    client = Web(SourceOptions(allow_redirects=True))
    internet["127.0.0.1"] = 1  # looked up before: it is itself
    assert "127.0.0.1 is not in the public internet" in refusal(client, "http://a.example/private")
    for number, path in enumerate(("file", "invalid")):
        message = refusal(client, f"http://b{number}.example/{path}")
        assert message == "the server redirects to what is no valid HTTP address"


def test_redirects_never_leave_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    @contextmanager
    def response(address: Address, credentials: str, deadline: float) -> Iterator[SimpleNamespace]:
        asked.append(str(address))
        yield SimpleNamespace(status=302, getheader=lambda name: "http://a.example/b")

    client = Web(SourceOptions(allow_redirects=True))
    monkeypatch.setattr(client, "_response", response)
    message = refusal(client, "https://a.example/a")
    assert message == "the server redirects to http://a.example/b, without encryption: not followed"
    assert asked == ["https://a.example/a"]


def test_redirects_end(server: Server) -> None:
    server.answers = {"/a": reply(status=302, Location="/a"), "/b": reply(status=302)}
    client = local(allow_redirects=True)
    assert refusal(client, f"{server.url}/a") == "the server redirects more than 5 times"
    assert len(server.requests) == 6
    assert refusal(client, f"{server.url}/b") == "the server answers HTTP 302 Found"


def test_another_server_does_not_get_the_credentials(server: Server) -> None:
    elsewhere = f"http://localhost:{server.port}"
    server.answers = {"/a": reply(status=302, Location="/b"), "/b": reply(status=302, Location=f"{elsewhere}/c"),
                      "/c": reply(PNG)}  # fmt: skip
    local(allow_redirects=True).get(f"{server.url.replace('//', '//me:secret@')}/a")
    assert ["authorization" in headers for _, headers in server.requests] == [True, True, False]


def test_busy_servers_are_asked_again(server: Server, waits: list[float]) -> None:
    server.answers = {
        "/a": in_turn(reply(status=503), hang_up, reply(status=429, Retry_After="7"), reply(PNG)),
        "/b": in_turn(reply(status=429, Retry_After=formatdate(0, usegmt=True)), reply(PNG)),
        "/c": in_turn(reply(status=500, Retry_After="soon"), reply(PNG)),
        "/d": in_turn(reply(status=500, Retry_After="Mon, 1 Jan 99999999999 00:00:00 GMT"), reply(PNG)),
    }
    client = local()
    assert [client.get(f"{server.url}/{name}") for name in "abcd"] == [PNG] * 4
    assert waits == [0.5, 1.0, 7.0, 0.0, 0.5, 0.5]


def test_attempts_end(server: Server, waits: list[float]) -> None:
    server.answers = {
        "/a": reply(status=503),
        "/b": reply(status=404),
        "/c": reply(status=429, Retry_After="3600"),
    }
    client = local()
    message = "the server answers HTTP 503 Service Unavailable, also after 4 attempts: try later"
    assert refusal(client, f"{server.url}/a") == message
    assert waits == [0.5, 1.0, 2.0]
    assert refusal(client, f"{server.url}/b") == "the server answers HTTP 404 Not Found"
    message = "the server answers HTTP 429 Too Many Requests: the server asks to wait 3,600 s: try later"
    assert refusal(client, f"{server.url}/c") == message
    assert server.paths == ["/a"] * 4 + ["/b", "/c"]


def test_a_host_that_always_fails_is_not_asked_for_ever(server: Server) -> None:
    server.answers = {"/": hang_up}
    client = local()
    for _ in range(3):
        assert "no answer from 127.0.0.1 (" in refusal(client, f"{server.url}/")
    assert refusal(client, f"{server.url}/") == "127.0.0.1 has failed 12 times in a row: try later"
    assert len(server.requests) == 12


def test_unknown_hosts_are_named(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    def look_up(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN if host == "a.example" else socket.EAI_NONAME, "reason")

    monkeypatch.setattr(web, "look_up", look_up)
    assert refusal(local(), "http://b.example/") == "no host is called b.example"
    assert waits == []
    assert refusal(local(), "http://a.example/").startswith("no answer from a.example (reason), also after 4")


def test_large_images_are_refused(server: Server) -> None:
    server.answers = {"/known": reply(b"", length=10_001), "/packed": reply(gzip.compress(b"\0" * 5_000_000),
                      Content_Encoding="gzip"), "/unknown": lambda handler: handler.wfile.write(
                          b"HTTP/1.1 200 OK\r\n\r\n" + b"\0" * 20_000) and hang_up(handler)}  # fmt: skip
    client = local(max_download_mb=0.01)
    for name, count in (("known", "10,001"), ("packed", "more than 10,000"), ("unknown", "more than 10,000")):
        message = refusal(client, f"{server.url}/{name}", ImageTooLargeError)
        assert message == f"it has {count} bytes, but 0.01 MB are allowed: raise max_download_mb"


def test_packed_images_are_bounded_packed_and_unpacked(server: Server) -> None:
    server.answers = {
        "/tiny": lambda handler: (
            handler.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
                + gzip.compress(b"") * 1000  # 20,000 bytes of nothing
            )
            and hang_up(handler)
        ),
        "/bomb": reply(gzip.compress(b"\0" * 60_000_000), Content_Encoding="gzip"),
    }
    assert "more than 10,000 bytes" in refusal(
        local(max_download_mb=0.01), f"{server.url}/tiny", ImageTooLargeError
    )
    tracemalloc.start()
    assert "more than 100,000 bytes" in refusal(
        local(max_download_mb=0.1), f"{server.url}/bomb", ImageTooLargeError
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_chunks_without_end_are_refused(server: Server) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            handler.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    server.answers = {"/": endless}
    assert "more than 1,000,000 bytes" in refusal(
        local(max_download_mb=1), f"{server.url}/", ImageTooLargeError
    )


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_packed_images_are_unpacked(server: Server, encoding: str) -> None:
    import zlib

    packed = gzip.compress(PNG) if encoding == "gzip" else zlib.compress(PNG)
    server.answers = {"/": reply(packed, Content_Encoding=encoding), "/br": reply(PNG, Content_Encoding="br"),
                      "/damaged": reply(PNG, Content_Encoding=encoding)}  # fmt: skip
    assert local().get(f"{server.url}/") == PNG
    assert refusal(local(), f"{server.url}/br") == "the server packs it as 'br', which is not supported"
    assert refusal(local(), f"{server.url}/damaged").startswith(
        "damaged on the way: it cannot be unpacked as "
    )


def test_lengths_that_are_not_true(server: Server) -> None:
    server.answers = {
        "/longer": reply(PNG, length=len(PNG) + 9),
        "/shorter": reply(PNG, length=len(PNG) // 2),
        "/invalid": reply(PNG, length="many"),
        "/packed": reply(gzip.compress(PNG)[:-9], Content_Encoding="gzip"),
    }
    cut_off = f"cut off after {len(PNG)} bytes, also after 4 attempts: try later"
    assert refusal(local(), f"{server.url}/longer") == cut_off
    assert "cut off after" in refusal(local(), f"{server.url}/packed")
    with pytest.raises(ImageError, match="cut off or damaged"):
        decode_image(local().image(f"{server.url}/shorter"))
    assert local().get(f"{server.url}/invalid") == PNG


def drip(handler: BaseHTTPRequestHandler, text: bytes) -> None:
    while True:
        handler.wfile.write(text)
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"]
)
def test_servers_that_send_too_slowly_are_left(server: Server, start: bytes) -> None:
    server.answers = {"/": lambda handler: (handler.wfile.write(start), drip(handler, b"x"))}
    message = "127.0.0.1 does not answer in time: given up after 0.2 s: raise max_download_s"
    assert refusal(local(max_download_s=0.2), f"{server.url}/") == message


def test_servers_that_stall_are_asked_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "READ_S", 0.1)
    left = threading.Event()
    server.answers = {"/": in_turn(lambda handler: left.wait(30), reply(PNG))}
    assert local().get(f"{server.url}/") == PNG
    left.set()


def test_web_pages_are_named(server: Server) -> None:
    server.answers = {"/": reply(b"<!DOCTYPE html><title>Log in</title>")}
    assert refusal(local(), f"{server.url}/") == "not an image, but a web page"


def test_connections_to_a_host_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CONNECTIONS", 2)
    second, free = threading.Barrier(2), list[bool]()
    client = local()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        second.wait(30)  # two requests wait for each other
        free.append(client._hosts["127.0.0.1"].slots.acquire(blocking=False))
        second.wait(30)
        reply(PNG)(handler)

    server.answers = {"/": answer}
    threads = [threading.Thread(target=client.get, args=(f"{server.url}/",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert free == [False] * 10


def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = {"/": reply(PNG)}
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert local().get(f"{server.url}/") == PNG


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    file = tmp_path / "a.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", file, "-out", tmp_path / "cert.pem", "-days", "2", "-subj", "/CN=a.example",
         "-addext", "subjectAltName=DNS:a.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return file


def test_certificates_are_checked_for_the_name_of_the_host(
    server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, context: names.append(name)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.answers = {"/": reply(PNG)}
    monkeypatch.setattr(web, "look_up", lambda host, port: ["127.0.0.1"])
    message = refusal(local(), f"https://a.example:{server.port}/")
    assert message.startswith("the certificate of a.example is not valid: self")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert local().get(f"https://a.example:{server.port}/") == PNG
    assert "the certificate of b.example is not valid: Hostname" in refusal(
        local(), f"https://b.example:{server.port}/"
    )
    assert names == ["a.example", "a.example", "b.example"]
