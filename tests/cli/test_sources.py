"""Archives, tables and addresses in one run, into a folder that a later run continues."""

import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mlx_aimv2 import Embedder, load
from mlx_aimv2.vectors.reading import read_vectors


@pytest.fixture
def server(photos):
    """A server with one image, and one that has moved there; it keeps the paths that it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = (photos / "2.png").read_bytes() if self.path == "/2.png" else b""
            self.send_response(200 if body else 302)
            if not body:
                self.send_header("Location", "/2.png")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.01))
    thread.start()
    http.asked, http.url = asked, f"http://127.0.0.1:{http.server_port}"
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def archive(photos, tmp_path):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as file:
        contents = {
            "0.png": (photos / "0.png").read_bytes(),
            "0.txt": b"a",
            "broken.png": b"\x89PNG\r\n\x1a\n",
        }
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def table(photos, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path = tmp_path / "table.parquet"
    write_table(pa.table({"image": [(photos / "1.png").read_bytes()]}), path)
    return path


def test_a_run_over_all_of_them_is_continued(cli, pair, photos, server, archive, table, tmp_path):
    folder = tmp_path / "vectors"
    names = f"{archive}\n{table}\n{server.url.replace('//', '//me:secret@')}/2.png\n{server.url}/moved\n"
    command = ("embed", "-", "--model", pair, "-o", f"{folder}/", "--allow-private-addresses")
    first = cli(*command, stdin=names)
    assert first.returncode == 1
    assert "left out 1 file: 1 other (.txt)" in first.stderr
    assert f"skipped {archive}/broken.png: " in first.stderr
    moved = (
        f"{server.url}/moved: the server redirects to {server.url}/2.png: --allow-redirects follows redirects"
    )
    assert f"skipped {moved}" in first.stderr
    assert "embedded 3 of 5 images" in first.stderr
    assert "secret" not in first.stderr + (folder / "manifest.json").read_text()
    failed = [json.loads(line)["path"] for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert failed == [f"{archive}/broken.png", f"{server.url}/moved"]
    ids = [f"{archive}/0.png", f"{table}#0", f"{server.url}/2.png"]
    vectors = read_vectors(folder)
    assert list(vectors.paths) == ids
    expected = Embedder(*load(pair)).images([photos / f"{number}.png" for number in range(3)])
    np.testing.assert_allclose(vectors.embeddings, expected, atol=1e-5)

    server.asked.clear()
    second = cli(*command, "--allow-redirects", stdin=names)
    assert second.returncode == 1
    assert "1 image: failed before and did not change" in second.stderr
    assert server.asked == ["/moved", "/2.png"]
    vectors = read_vectors(folder)
    assert list(vectors.paths) == [*ids, f"{server.url}/moved"]
    np.testing.assert_allclose(vectors.embeddings[3], expected[2], atol=1e-5)


def test_private_addresses_and_redirects_are_refused_with_the_option_that_allows_them(cli, pair, server):
    done = cli("embed", f"{server.url}/2.png", "--model", pair)
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1 is not in the public internet: --allow-private-addresses allows it" in done.stderr
    assert server.asked == []


def test_an_address_is_no_file_for_verbs_that_read_files(cli, pair, server):
    done = cli("evaluate", f"{server.url}/2.png", "--model", pair)
    assert done.returncode == 2
    assert server.asked == []
