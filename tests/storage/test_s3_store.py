"""S3, on a server on loopback that enforces conditional writes; and servers that refuse, vanish or hesitate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from conftest import BUCKET
from stores import KEY, dead_owner, write_files

from genai_core.config.settings import Settings
from genai_core.errors import ClaimLostError, ConfigError, DataError, IntegrityError, StorageError, TransientError
from genai_core.storage import s3 as s3_module
from genai_core.storage.artifact import ArtifactKind
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.open import open_store
from genai_core.storage.owner import this_process
from genai_core.storage.s3 import S3Store, digest_prefix, fetch_prefix
from genai_core.storage.workspace import Workspace

SECRET = "HUSH-HUSH"


@pytest.fixture
def objects(s3_settings: Settings, tmp_path: Path) -> S3Store:
    opened = open_store(f"s3://{BUCKET}/{tmp_path.name}", s3_settings)
    assert isinstance(opened, S3Store)
    return opened


def test_objects_come_back_as_they_were_put(objects: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(objects.list("")) == [], "the probe left something behind"
    objects.put("a/b", b"one")
    objects.put("a.b", b"two")
    write_files(tmp_path, big=b"0123456789" * 1_000_000)
    objects.put_file("a/big", tmp_path / "big.bin")
    objects.get_file("a/big", tmp_path / "deep" / "back")
    assert (tmp_path / "deep" / "back").read_bytes() == b"0123456789" * 1_000_000
    assert [(entry.path, entry.size) for entry in objects.list("a")] == [("a.b", 3), ("a/b", 3), ("a/big", 10_000_000)]
    assert objects.get("a/none") is None and objects.local_path("a") is None
    with pytest.raises(StorageError, match="a/none"):
        objects.get_file("a/none", tmp_path / "none")
    objects.delete("a/b")
    objects.delete("a/b")
    assert objects.get("a/b") is None
    with pytest.raises(StorageError, match="not a path inside"):
        objects.put("../b", b"")


def test_a_listing_goes_on_over_pages(objects: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(7):
        objects.put(f"many/{n}", b"x")
    page = s3_module._Connection._page
    monkeypatch.setattr(s3_module._Connection, "_page", lambda self, asked: page(self, {**asked, "MaxKeys": 3}))
    assert [entry.path for entry in objects.list("many/")] == [f"many/{n}" for n in range(7)]


def test_many_threads_and_one_object(objects: S3Store) -> None:
    start, wins = threading.Barrier(6), []

    def write(name: str) -> None:
        start.wait()
        wins.extend((n, name) for n in range(10) if objects.put_if_absent(f"race/{n}", name.encode()))

    objects.get("warm the client up")
    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for n, _ in wins) == list(range(10))
    assert all(objects.get(f"race/{n}") == name.encode() for n, name in wins)


def test_artifacts_and_claims_live_on_s3(objects: S3Store, tmp_path: Path) -> None:
    store = ArtifactStore(objects, tmp_path / "scratch")
    stale = acquire(objects, KEY, dead_owner(), stale_seconds=60)
    claim = acquire(objects, KEY, this_process(), stale_seconds=60)
    assert isinstance(claim, Claim) and isinstance(stale, Claim) and claim.attempt == 2
    output = write_files(tmp_path / "out", weights=b"w" * 1000, sub__x=b"x")
    with pytest.raises(ClaimLostError):
        store.publish(stale, ArtifactKind.MODEL, "base", output, {})
    ref = store.publish(claim, ArtifactKind.MODEL, "base", output, {"stage": "pretrain"})
    assert store.find(KEY) == ref and ref.uri == f"{objects.uri}/artifacts/{KEY}"
    path = store.fetch(ref)
    assert (path / "weights.bin").read_bytes() == b"w" * 1000 and store.fetch(ref) == path
    (path / "weights.bin").write_bytes(b"edited in the cache")
    assert (store.fetch(ref) / "weights.bin").read_bytes() == b"w" * 1000
    assert store.verify_all() == []
    objects.put(f"artifacts/{KEY}/a2/weights.bin", b"v" + b"w" * 999)
    (problem,) = store.verify_all()
    assert "other bytes" in problem.what
    (path / "weights.bin").unlink()
    with pytest.raises(IntegrityError, match="--refresh pretrain"):
        store.fetch(ref)
    objects.delete(f"artifacts/{KEY}/a2/sub/x.bin")
    with pytest.raises(IntegrityError, match=r"sub/x\.bin is missing"):
        store.find(KEY)
    assert not list((tmp_path / "scratch").glob("verify-*"))


def test_a_workspace_is_mirrored(objects: S3Store, tmp_path: Path) -> None:
    here = Workspace(objects, KEY, tmp_path / "here")
    write_files(here.path, shards__1=b"one")
    here.save("shards")
    there = Workspace(objects, KEY, tmp_path / "there")
    there.restore()
    assert (there.path / "shards" / "1.bin").read_bytes() == b"one"
    there.remove()
    assert list(objects.list("work/")) == []


def test_data_below_a_prefix_is_fetched_whole_and_its_digest_moves(s3_settings: Settings, tmp_path: Path) -> None:
    place = f"s3://{BUCKET}/data-{tmp_path.name}"
    data = S3Store(place, s3_settings)
    sibling = S3Store(f"{place}-old", s3_settings)
    sibling.put("x.txt", b"not this one")
    data.put("a.txt", b"one")
    data.put("sub/b.txt", b"two")
    data.put("sub/", b"")  # a folder's marker, as consoles make them
    first = digest_prefix(place, s3_settings)
    assert digest_prefix(f"{place}/", s3_settings) == first
    target = fetch_prefix(place, tmp_path / "data" / first, s3_settings, digest=first)
    assert {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.txt")} == {
        "a.txt": b"one",
        "sub/b.txt": b"two",
    }
    data.put("a.txt", b"eno")
    second = digest_prefix(place, s3_settings)
    assert second != first
    with pytest.raises(DataError, match="has changed"):
        fetch_prefix(place, tmp_path / "other", s3_settings, digest=first)
    assert not list(tmp_path.glob("*other*"))
    data.put("a.txt", b"one")
    assert digest_prefix(place, s3_settings) == first, "the same content has the same digest"
    one = fetch_prefix(f"{place}/a.txt", tmp_path / "one", s3_settings)
    assert (one / "a.txt").read_bytes() == b"one"
    with pytest.raises(DataError, match="No object lies below"):
        digest_prefix(f"{place}-nothing", s3_settings)
    data_with_trap = S3Store(f"s3://{BUCKET}", s3_settings)
    data_with_trap._s3.call(lambda client: client.put_object(Bucket=BUCKET, Key=f"trap-{tmp_path.name}/../x", Body=b""))
    with pytest.raises(DataError, match="outside"):
        digest_prefix(f"s3://{BUCKET}/trap-{tmp_path.name}", s3_settings)


def answer(code: int, error: str) -> tuple[int, bytes]:
    return code, f"<Error><Code>{error}</Code><Message>m</Message></Error>".encode()


@contextmanager
def server(reply: Callable[[str, int], tuple[int, bytes]]) -> Iterator[str]:
    """Run an S3 server that answers `reply(method, how many requests came before)`."""
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            nonlocal count
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, body = reply(self.command, count)
            count += 1
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def at(settings: Settings, address: str) -> Settings:
    return settings.model_copy(update={"s3_endpoint_url": address})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(403, "SignatureDoesNotMatch"), "refuses our credentials .*GENAI_S3_SECRET_KEY"),
        (answer(403, "AccessDenied"), "refuses our credentials"),
        (answer(400, "ExpiredToken"), r"refuses our credentials \(ExpiredToken\)"),
        (answer(403, "RequestTimeTooSkewed"), "its clock and ours differ"),
        (answer(404, "NoSuchBucket"), "There is no bucket"),
    ],
)
def test_what_the_user_got_wrong_is_said_at_once(s3_settings: Settings, reply: tuple[int, bytes], words: str) -> None:
    with server(lambda method, count: reply) as address:
        began = time.monotonic()
        with pytest.raises(ConfigError, match=words) as caught:
            open_store("s3://some-bucket/x", at(s3_settings, address))
        assert time.monotonic() - began < 5
        assert address in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize(("encryption", "key"), [("AES256", ""), ("aws:kms", "alias/ours"), ("", "")])
def test_objects_are_encrypted_as_the_settings_ask(
    s3_settings: Settings, tmp_path: Path, encryption: str, key: str
) -> None:
    settings = Settings(**{**dict(s3_settings), "s3_encryption": encryption, "s3_kms_key": key})
    store = open_store(f"s3://{BUCKET}/encrypted-{encryption.replace(':', '-')}", settings)
    (tmp_path / "large").write_bytes(b"a" * (9 << 20))  # in parts
    store.put("put", b"a")
    store.put_if_absent("created", b"b")
    store.put_file("file", tmp_path / "large")
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    for path in ("put", "created", "file"):
        head = client.head_object(Bucket=BUCKET, Key=f"encrypted-{encryption.replace(':', '-')}/{path}")
        assert head.get("ServerSideEncryption", "") == encryption or not encryption
        assert not key or head["SSEKMSKeyId"].endswith(key)
    assert store.get("created") == b"b"


def test_a_bucket_that_is_not_there(s3_settings: Settings) -> None:
    with pytest.raises(ConfigError, match="no bucket 'not-there'"):
        open_store("s3://not-there/x", s3_settings)


def test_an_unreachable_server_is_tried_again_and_named(s3_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_module.PATIENCE_SECONDS == 30
    monkeypatch.setattr(s3_module, "PATIENCE_SECONDS", 1.2)
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://some-bucket/x at http://127.0.0.1:9 could not be reached") as caught:
        open_store("s3://some-bucket/x", at(s3_settings, "http://127.0.0.1:9"))
    assert 0.4 < time.monotonic() - began < 10
    assert caught.value.exit_code == 1 and SECRET not in str(caught.value)
    with pytest.raises(TransientError):
        S3Store("s3://some-bucket/x", at(s3_settings, "http://127.0.0.1:9")).get("a")


def test_a_server_that_comes_back_is_used(s3_settings: Settings) -> None:
    with server(lambda method, count: answer(503, "SlowDown") if count < 2 else (200, b"here")) as address:
        assert S3Store("s3://some-bucket/x", at(s3_settings, address)).get("a") == b"here"


def test_two_writers_who_meet_are_decided_by_the_object(s3_settings: Settings) -> None:
    met = answer(409, "ConditionalRequestConflict")
    for there, won in (((200, b"theirs"), False), (answer(404, "NoSuchKey"), True)):
        replies = [met, there, (200, b"")]
        with server(lambda method, count, replies=replies: replies[min(count, 2)]) as address:
            assert S3Store("s3://some-bucket/x", at(s3_settings, address)).put_if_absent("a", b"ours") is won


@pytest.mark.parametrize("uri", ["s3://AKID:HUSH-HUSH@bucket/x", "s3://bucket/x?secret=HUSH-HUSH"])
def test_credentials_in_an_address_are_refused_and_not_shown(s3_settings: Settings, uri: str) -> None:
    with pytest.raises(ConfigError, match="GENAI_S3_ACCESS_KEY") as caught:
        open_store(uri, s3_settings)
    assert SECRET not in str(caught.value)


def test_secrets_are_in_no_text(objects: S3Store, s3_settings: Settings) -> None:
    texts = [repr(s3_settings), str(s3_settings), s3_settings.model_dump_json(), repr(objects), objects.uri]
    texts += [str(s3_settings.for_jobs()), repr(vars(objects))]
    assert s3_settings.s3_secret_key is not None and s3_settings.s3_secret_key.get_secret_value() == SECRET
    assert not [text for text in texts if SECRET in text]


def test_no_credentials_at_all(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    boto3.setup_default_session()
    with pytest.raises(ConfigError, match="No credentials"):
        open_store(f"s3://{BUCKET}/x", Settings(home=tmp_path, s3_endpoint_url=s3_server))
