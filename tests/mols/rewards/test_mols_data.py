"""Data files: which place counts, what is refused and in which words, downloads, and pickles that are not arrays."""

import functools
import gzip
import hashlib
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from each import each
from shared_data import SHARED, needs

from mols.common.terminal import ExperimentError
from mols.rewards import downloads as files
from mols.rewards.downloads import FILES, DataFile, find
from mols.rewards.seh.restricted_pickle import load_arrays

CONTENT = b"weights" * 100_000  # several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site(BaseHTTPRequestHandler):
    """Serves what the server's ``answers`` say, path by path, and counts."""

    def do_GET(self):
        self.server.n_requests += 1
        if self.path not in self.server.answers:
            self.send_error(404)
            return
        body, announced = self.server.answers[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """A server on this machine; its ``answers`` are path -> (body, announced length)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.answers, server.n_requests = {"/weights.bin": (CONTENT, len(CONTENT))}, 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def places(tmp_path, monkeypatch, site):
    """Folders ``named``, ``variable`` and ``cache`` of which only the latter is known; a table of two small files."""
    table = [
        DataFile("weights.bin", f"http://127.0.0.1:{site.server_port}/weights.bin", SHA256),
        DataFile("local.csv", None, SHA256, instead="use another"),
    ]
    monkeypatch.setattr(files, "FILES", {file.name: file for file in table})
    monkeypatch.delenv("GFLOWNET_TLM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folders = {"named": tmp_path / "named", "variable": tmp_path / "variable", "cache": tmp_path / "xdg/gflownet-tlm"}
    for folder in folders.values():
        folder.mkdir(parents=True)
    return folders


def put(folder, name="weights.bin", content=CONTENT):
    (folder / name).write_bytes(content)
    return folder / name


def message_of(function, *arguments):
    """What it refuses with, one sentence."""
    with pytest.raises(ExperimentError) as refused:
        function(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_named_folder_comes_before_the_variable_and_that_before_the_cache(places, monkeypatch, site):
    paths = {place: put(folder) for place, folder in places.items()}
    assert find("weights.bin") == paths["cache"]
    monkeypatch.setenv("GFLOWNET_TLM_DATA", str(places["variable"]))
    assert find("weights.bin") == paths["variable"]
    assert find("weights.bin", str(places["named"])) == paths["named"]
    assert find("weights.bin", "") == paths["variable"]
    assert site.n_requests == 0


def test_a_download_goes_to_the_variables_folder(places, monkeypatch, site):
    monkeypatch.setenv("GFLOWNET_TLM_DATA", str(places["variable"]))
    put(places["cache"])
    assert find("weights.bin") == places["variable"] / "weights.bin" and site.n_requests == 1


def test_the_named_folder_must_have_the_file(places, site):
    put(places["cache"])
    message = message_of(find, "weights.bin", places["named"])
    assert message == f"weights.bin is not in {places['named']}: put it there"
    assert site.n_requests == 0


def test_a_folder_that_is_not_there_is_refused(places, monkeypatch):
    put(places["cache"])
    assert message_of(find, "weights.bin", "nowhere") == (
        "--data_dir is 'nowhere', which is not a folder: name one, or leave it out"
    )
    monkeypatch.setenv("GFLOWNET_TLM_DATA", "nowhere")
    assert message_of(find, "weights.bin").startswith("GFLOWNET_TLM_DATA is 'nowhere', which is not a folder")


def test_a_folder_that_cannot_be_looked_at_is_said(places):
    message = message_of(find, "weights.bin", "x" * 300)
    assert message.startswith("cannot look for weights.bin (") and "File name too long" in message


def test_a_file_without_an_address_names_the_place_and_what_to_do(places, site):
    message = message_of(find, "local.csv")
    assert message == f"local.csv is not in {places['cache']}: put it there, or use another"
    assert site.n_requests == 0


def test_another_hash_is_refused_wherever_the_file_lies(places, monkeypatch):
    for place in ("cache", "variable", "named"):
        monkeypatch.setenv("GFLOWNET_TLM_DATA", str(places[place]))
        path = put(places[place], content=CONTENT + b"x")
        message = message_of(find, "weights.bin", places["named"] if place == "named" else None)
        assert message.startswith(f"{path} is damaged or another file")
        assert message.endswith("replace it, or delete it to download it again")
    path = put(places["named"], "local.csv", b"")
    assert message_of(find, "local.csv", places["named"]).endswith("download it again, or use another")


def test_a_download_is_kept_and_leaves_nothing_else(places, site):
    path = find("weights.bin")
    assert path == places["cache"] / "weights.bin" and path.read_bytes() == CONTENT
    assert find("weights.bin") == path and site.n_requests == 1
    assert [entry.name for entry in places["cache"].iterdir()] == ["weights.bin"]


def test_a_download_makes_the_cache(places):
    places["cache"].rmdir()
    places["cache"].parent.rmdir()
    assert find("weights.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer", [(b"another file", 12), (CONTENT[:-1], len(CONTENT)), (b"", 0)], ids=["other", "broken off", "empty"]
)
def test_a_wrong_download_is_refused_and_leaves_nothing(places, site, answer):
    site.answers["/weights.bin"] = answer
    message = message_of(find, "weights.bin")
    assert "does not match" in message or "broken" in message
    assert message.endswith("put weights.bin there, or into a folder that --data_dir names")
    assert not list(places["cache"].iterdir())


def test_a_page_that_is_not_there_is_said(places, site):
    site.answers.clear()
    message = message_of(find, "weights.bin")
    assert "cannot download http://127.0.0.1" in message and "Not Found" in message
    assert not list(places["cache"].iterdir())


def test_without_a_network_the_message_says_where_to_put_the_file(places, site):
    site.shutdown()
    site.server_close()
    message = message_of(find, "weights.bin")
    assert f"into {places['cache']} (" in message and "refused" in message
    assert message.endswith("put weights.bin there, or into a folder that --data_dir names")


def test_a_cache_that_cannot_be_made_is_said(places, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(put(tmp_path, "file")))
    assert "Not a directory" in message_of(find, "weights.bin")


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in sorted(FILES)])
def test_the_table_knows_the_shared_files(name):
    assert find(name, SHARED) == SHARED / name


def test_the_table_is_frozen():
    with pytest.raises(TypeError):
        FILES["other"] = FILES["seh_test_set.csv"]
    with pytest.raises(AttributeError):
        FILES["seh_test_set.csv"].url = "http://example.org"


def gzipped(path, content):
    path.write_bytes(gzip.compress(content))
    return path


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_come_back(tmp_path, protocol, dtype):
    arrays = [np.arange(6, dtype=dtype).reshape(2, 3), np.ones(4, dtype), np.array(2.5, dtype)]
    found = load_arrays(gzipped(tmp_path / "a.pkl.gz", pickle.dumps(arrays, protocol)))
    for array, expected in zip(found, arrays, strict=True):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)


class Call:
    """A pickle of it calls ``function(*arguments)`` when it is read."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


MALICIOUS = {
    "posix.mkdir": lambda target: Call(os.mkdir, target),
    "builtins.eval": lambda target: Call(eval, f"__import__('os').mkdir({target!r})"),
    "builtins.getattr": lambda _: Call(getattr, np.ndarray, "tofile"),
    "functools.partial": lambda target: functools.partial(os.mkdir, target),
    "numpy.load": lambda target: Call(np.load, target),
    "pathlib.PosixPath": lambda target: Path(target),
}


@each("name", MALICIOUS)
@each("protocol", [3, 4])
def test_a_pickle_that_names_anything_else_is_refused_before_it_is_called(tmp_path, name, protocol):
    target = tmp_path / "made"
    content = pickle.dumps([np.ones(2), MALICIOUS[name](str(target))], protocol)
    assert f"it names {name}, " in message_of(load_arrays, gzipped(tmp_path / "a.pkl.gz", content))
    assert not target.exists()


def test_a_dotted_name_does_not_slip_through(tmp_path):
    content = b"\x80\x04" + b"\x8c\x05numpy" + b"\x8c\x0endarray.tofile" + b"\x93."
    assert "it names numpy.ndarray.tofile," in message_of(load_arrays, gzipped(tmp_path / "a.pkl.gz", content))


NOT_WEIGHTS = {
    "a dictionary": pickle.dumps({"a": 1.0}, 4),
    "numbers": pickle.dumps([1.0, 2.0], 4),
    "one array": pickle.dumps(np.ones((2, 2)), 4),
    "objects": pickle.dumps([np.array([None, "text"], dtype=object)], 4),
    "text": pickle.dumps([np.array(["text"])], 4),
    "whole numbers": pickle.dumps([np.arange(3)], 4),
    "not a number": pickle.dumps([np.array([1.0, np.nan])], 4),
    "infinite": pickle.dumps([np.array([np.inf])], 4),
    "a type": pickle.dumps([np.ndarray], 4),
    "cut short": pickle.dumps([np.ones(100)], 4)[:-50],
    "nothing": b"",
    "no pickle": b"<html>not found</html>",
}


@each("case", NOT_WEIGHTS)
def test_what_is_not_arrays_of_weights_is_refused(tmp_path, case):
    path = gzipped(tmp_path / "a.pkl.gz", NOT_WEIGHTS[case])
    message = message_of(load_arrays, path)
    assert message.startswith(f"{path} is not a file of weights (") and message.endswith("by the published one")


def test_what_is_not_gzipped_or_cut_short_is_refused(tmp_path):
    whole = gzip.compress(pickle.dumps([np.random.default_rng(0).normal(size=1000)], 4))
    for content in (pickle.dumps([np.ones(2)], 4), whole[:-100], b""):
        assert "is not a file of weights" in message_of(load_arrays, put(tmp_path, "a.pkl.gz", content))
    assert "No such file" in message_of(load_arrays, tmp_path / "missing.pkl.gz")
