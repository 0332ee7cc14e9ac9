"""Bad input: exit 2, one screen with value and remedy, before any stage runs, nothing half-written."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from genai_core.cli.main import main

SCREEN_LINES = 24


class Told:
    """What a command ended with."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def genai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("GENAI_STORAGE_URI", "GENAI_TRACKING_URI", "GENAI_RAY_ADDRESS"):  # options set them: undone after
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["genai", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        captured = capsys.readouterr()
        return Told(int(done.value.code or 0), captured.out, " ".join(captured.err.split()))

    return call


def recipe(tmp_path: Path, data: dict[str, Any], **more: Any) -> str:
    content = {
        "name": "mine",
        "data": {"pairs": {"kind": "quotes"}, **data},
        **more,
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def refused(told: Told, tmp_path: Path, *parts: str) -> None:
    assert told.code == 2, told.err
    assert "Traceback" not in told.err
    for part in parts:
        assert part in told.err
    assert len(told.err) < SCREEN_LINES * 100
    store = tmp_path / "home" / "store"
    assert not store.exists() or not any(store.rglob("*.json")), "something was written before the refusal"


def test_an_unknown_recipe_key(genai: Any, tmp_path: Path) -> None:
    refused(
        genai("run", "minute", "--set", "pretraining.stepz=3"), tmp_path, "pretraining.stepz", "Did you mean 'steps'?"
    )


def test_a_stage_to_refresh_that_is_none(genai: Any, tmp_path: Path) -> None:
    refused(
        genai("run", "minute", "--refresh", "train-g7"),
        tmp_path,
        "--refresh train-g7",
        "Did you mean 'train-g",
        "Known",
    )
    assert not list((tmp_path / "home" / "services").rglob("*.*")), "no server was started for it"


def test_a_wrong_type(genai: Any, tmp_path: Path) -> None:
    refused(
        genai("run", "minute", "--set", "pretraining.steps=many"), tmp_path, "pretraining.steps = 'many'", "integer"
    )


def test_a_missing_file(genai: Any, tmp_path: Path) -> None:
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(tmp_path / "nowhere")}})
    refused(genai("run", path), tmp_path, "nowhere")


def test_an_empty_file(genai: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(tmp_path / "empty.txt")}})
    refused(genai("run", path), tmp_path, "empty")


def test_binary_garbage_as_text(genai: Any, tmp_path: Path) -> None:
    (tmp_path / "garbage.txt").write_bytes(bytes(range(256)) * 40)
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(tmp_path / "garbage.txt")}})
    refused(genai("run", path), tmp_path, "garbage.txt")


def test_jsonl_without_the_named_field(genai: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"content": f"row {number} with some words in it"}) for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    source = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl"), "text_field": "contents"}
    refused(genai("run", recipe(tmp_path, {"source": source})), tmp_path, "contents", "'content'")


def test_more_than_a_percent_of_unreadable_rows_names_the_first(genai: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"row {number} with some words in it"}) for number in range(200)]
    rows[6] = rows[40] = rows[90] = "{not json"
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    path = recipe(tmp_path, {"source": {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}})
    refused(genai("run", path), tmp_path, "rows.jsonl", "7")


def test_a_base_model_that_is_not_there(genai: Any, tmp_path: Path) -> None:
    base = {"base": {"kind": "folder", "path": str(tmp_path / "model")}}
    text = tmp_path / "text.txt"
    text.write_text("some words\n" * 100)
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(text)}, "tokenizer": {"kind": "base"}}, **base)
    refused(genai("run", path), tmp_path, "model")


def test_a_hub_model_without_the_hub(genai: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some words\n" * 100)
    data = {"source": {"kind": "text", "path": str(text)}, "tokenizer": {"kind": "base"}}
    refused(
        genai("run", recipe(tmp_path, data, base={"kind": "hub", "repo": "nobody/nothing"})), tmp_path, "nobody/nothing"
    )


def test_a_batch_that_does_not_divide(genai: Any, tmp_path: Path) -> None:
    told = genai("run", "minute", "--set", "finetuning.global_batch_tokens=1000")
    refused(told, tmp_path, "global_batch_tokens=1,000", "Set it to 1,024")


def test_a_sequence_longer_than_the_model(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "minute", "--set", "base.max_seq_len=128"), tmp_path, "longer than the model takes")


@pytest.mark.parametrize("uri", ["ftp://somewhere/store", "s3://"])
def test_a_bad_storage_uri(genai: Any, tmp_path: Path, uri: str) -> None:
    refused(genai("run", "minute", "--storage", uri), tmp_path, uri.split(":", maxsplit=1)[0])


def test_a_bad_tracking_uri(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "minute", "--mlflow", "ftp://somewhere"), tmp_path, "ftp")


def test_storage_that_cannot_be_written(genai: Any, tmp_path: Path) -> None:
    # root may write anywhere but where the system itself forbids it
    refused(genai("run", "minute", "--storage", "/proc/genai-store"), tmp_path, "/proc/genai-store")


def test_a_report_into_a_folder_that_is_not_there(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "minute", "--report", str(tmp_path / "no" / "report.json")), tmp_path, "there is no folder")


def test_an_unknown_recipe(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "quikstart"), tmp_path, "Did you mean 'quickstart'?")


def test_an_unknown_option_is_the_users_mistake(genai: Any, tmp_path: Path) -> None:
    assert genai("run", "minute", "--frobnicate").code == 2


def test_an_unknown_model(genai: Any, tmp_path: Path) -> None:
    told = genai("chat", "nobody", "-m", "hello")
    assert told.code == 2
    assert "nobody" in told.err


def test_a_tokenizer_with_more_entries_than_the_model_has_embeddings(genai: Any, tmp_path: Path) -> None:
    from genai_core.config.model import ScratchBase
    from genai_core.data.tokenizer import train_tokenizer
    from genai_core.models.load import init_scratch

    tokenizer = train_tokenizer(["some words of a small vocabulary, some of them twice: naïve " * 20], 330, 64)
    model = init_scratch(ScratchBase(n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48), tokenizer)
    model.resize_token_embeddings(len(tokenizer) - 30)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("some words\n" * 100)
    source = {"kind": "text", "path": str(tmp_path / "text.txt")}
    base = {"kind": "folder", "path": str(tmp_path / "model")}
    path = recipe(tmp_path, {"source": source, "tokenizer": {"kind": "base"}}, base=base)
    entries, rows = len(tokenizer), len(tokenizer) - 30
    told = genai("run", path)
    refused(told, tmp_path, f"{tmp_path / 'model'}: the tokenizer has {entries} entries, but the model only {rows}")
    assert "use a folder with the tokenizer that the model was trained with" in told.err


BUCKET, SECRET = "genai-bad-input", "HUSH-HUSH"
NAMES = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
Reach = Callable[[str, str], None]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """An S3 and IAM server on loopback with one bucket; a client of it is what is given."""
    import boto3
    from moto.server import ThreadedMotoServer

    # what a test before has imported may log to a screen that is gone: werkzeug's thread would say so on this one's
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=address, **NAMES)
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


@pytest.fixture
def reach(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reach:
    """Let `genai` talk to the server with these keys, and with no others that this machine may have."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GENAI_S3_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("GENAI_S3_ENDPOINT_URL", s3.meta.endpoint_url)

    def use(access: str, secret: str) -> None:
        monkeypatch.setenv("GENAI_S3_ACCESS_KEY", access)
        monkeypatch.setenv("GENAI_S3_SECRET_KEY", secret)

    return use


@contextmanager
def looking_at_keys(s3: Any) -> Iterator[tuple[str, str]]:
    """Let the server look at keys; give access and secret key of a user who may do nothing."""
    import boto3

    address = s3.meta.endpoint_url

    def look_after(requests: str) -> None:
        told = urllib.request.Request(
            f"{address}/moto-api/reset-auth", requests.encode(), {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(told).close()

    iam = boto3.client("iam", endpoint_url=address, **NAMES)
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    look_after("0")
    try:
        yield key["AccessKeyId"], key["SecretAccessKey"]
    finally:
        look_after("inf")
        iam.delete_access_key(UserName="nobody", AccessKeyId=key["AccessKeyId"])
        iam.delete_user(UserName="nobody")


def check_untouched(s3: Any, tmp_path: Path) -> None:
    """Check that neither the bucket nor the home holds anything, and that no server of ours was started."""
    assert s3.list_objects_v2(Bucket=BUCKET).get("Contents", []) == []
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [("access key", "InvalidAccessKeyId"), ("secret key", "SignatureDoesNotMatch"), ("rights", "AccessDenied")],
)
def test_s3_credentials_that_are_refused(
    genai: Any, tmp_path: Path, s3: Any, reach: Reach, wrong: str, code: str
) -> None:
    with looking_at_keys(s3) as (access, secret):
        reach("AKIAOFNOBODYATALL000" if wrong == "access key" else access, SECRET if wrong == "secret key" else secret)
        told = genai("run", "minute", "--storage", f"s3://{BUCKET}/runs")
    place = f"s3://{BUCKET}/runs at {s3.meta.endpoint_url}"
    remedy = "Check GENAI_S3_ACCESS_KEY, GENAI_S3_SECRET_KEY and what they may do"
    refused(told, tmp_path, f"{place} refuses our credentials ({code})", remedy)
    assert SECRET not in told.out + told.err
    assert secret not in told.out + told.err
    check_untouched(s3, tmp_path)


@pytest.mark.parametrize("use", ["store", "data"])
def test_an_s3_bucket_that_is_not_there(genai: Any, tmp_path: Path, s3: Any, reach: Reach, use: str) -> None:
    reach("AKIAANYBODY", SECRET)
    place = "s3://genai-not-there/some/prefix"
    if use == "store":
        told = genai("run", "minute", "--storage", place)
    else:
        told = genai("run", recipe(tmp_path, {"source": {"kind": "s3", "path": place, "format": "text"}}))
    refused(told, tmp_path, f"no bucket 'genai-not-there' at {place} at {s3.meta.endpoint_url}. Create it")
    assert SECRET not in told.out + told.err
    check_untouched(s3, tmp_path)


@pytest.mark.parametrize("use", ["store", "data"])
def test_no_s3_credentials_at_all(genai: Any, tmp_path: Path, s3: Any, reach: Reach, use: str) -> None:
    place = f"s3://{BUCKET}/some/prefix"
    if use == "store":
        told = genai("run", "minute", "--storage", place)
    else:
        told = genai("run", recipe(tmp_path, {"source": {"kind": "s3", "path": place, "format": "text"}}))
    refused(told, tmp_path, f"No credentials for {place}", "Set GENAI_S3_ACCESS_KEY and GENAI_S3_SECRET_KEY")
    check_untouched(s3, tmp_path)


@pytest.mark.parametrize("use", ["store", "data"])
def test_an_unreachable_s3_is_tried_for_a_while_and_ends_with_its_address(
    genai: Any, tmp_path: Path, s3: Any, reach: Reach, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    from genai_core.storage import s3 as s3_module

    assert s3_module.PATIENCE_SECONDS == 30
    monkeypatch.setattr(s3_module, "PATIENCE_SECONDS", 2.0)
    reach("AKIAANYBODY", SECRET)
    monkeypatch.setenv("GENAI_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    began, place = time.monotonic(), f"s3://{BUCKET}/runs"
    if use == "store":
        told = genai("run", "minute", "--storage", place)
    else:
        told = genai("run", recipe(tmp_path, {"source": {"kind": "s3", "path": place, "format": "text"}}))
    assert time.monotonic() - began > 1.0
    said = " ".join(told.out.split()) + told.err
    assert told.code == 1, said
    assert f"{place} at http://127.0.0.1:9 could not be reached for 2 s" in said
    assert "then run again" in said
    assert "Traceback" not in said
    assert SECRET not in said
    check_untouched(s3, tmp_path)


@pytest.fixture(scope="module", autouse=True)
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """Begin a run that waits half a minute for its tracking server, beside the tests before the one that looks at it."""
    folder = tmp_path_factory.mktemp("unreachable")
    environment = {**os.environ, "GENAI_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "genai_core.cli", "run", "minute", "--mlflow", "http://127.0.0.1:9"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, cwd=folder, stdout=pipe, stderr=pipe, text=True) as begun:
        yield begun
        begun.terminate()  # where its test was not chosen: it takes its own with it


def test_an_unreachable_tracking_server_ends_with_its_address(unreachable: subprocess.Popen[str]) -> None:
    out, err = unreachable.communicate(timeout=120)
    assert unreachable.returncode == 1
    assert "127.0.0.1:9" in out + err
    assert "Traceback" not in err


def test_help_answers_at_once(tmp_path: Path) -> None:
    code = "import sys, genai_core.cli.main; bad = {'torch', 'ray', 'mlflow', 'prefect', 'transformers'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_flow_that_there_is_not(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "minute", "--flow", "erazure"), tmp_path, "'erazure'", "Did you mean 'erasure'?", "comparison")


def test_a_prefect_server_that_answers_nonsense_before_the_first_stage_is_named(
    genai: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen once on a busy machine: 200 with an empty body, and Prefect's client raises."""
    from prefect.client.orchestration import SyncPrefectClient

    def nonsense(self: Any) -> None:
        raise RuntimeError("Failed to reach API at http://127.0.0.1:1/api/") from ValueError("Expecting value")

    monkeypatch.setattr(SyncPrefectClient, "raise_for_api_version_mismatch", nonsense)
    told = genai("run", "minute", "--set", "recursion.generations=0")
    said = " ".join(told.out.split())
    assert told.code == 1 and "Traceback" not in said + told.err
    assert "did not answer as it should, before anything ran (Expecting value). Run again" in said
