"""Claims: one holder, waiting, takeover, and no publication by a process that has lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from stores import KEY, Crash, HookedStore, dead_owner

from genai_core.errors import ClaimLostError, IntegrityError, InterruptedRunError, TransientError
from genai_core.storage.claims import Claim, ClaimLog, Event, Published, acquire
from genai_core.storage.folder import FolderStore
from genai_core.storage.layout import heartbeat_path, manifest_path, retired_path
from genai_core.storage.owner import is_gone, this_process

MANIFEST = b'{"base": "a1"}'
ME = this_process("this test")

HOLDER = """
import sys
from pathlib import Path
from genai_core.errors import ClaimLostError
from genai_core.storage.claims import acquire
from genai_core.storage.folder import FolderStore
from genai_core.storage.owner import this_process
claim = acquire(FolderStore(Path(sys.argv[1])), sys.argv[2], this_process("holder"), stale_seconds=60)
claim.start_heartbeat(0.1)
print("held", flush=True)
sys.stdin.readline()
try:
    claim.commit(b'{"base": "a1", "by": "holder"}')
    print("published")
except ClaimLostError as error:
    print("lost", error)
"""

RACER = """
import sys
from pathlib import Path
from genai_core.errors import TransientError
from genai_core.storage.claims import acquire
from genai_core.storage.folder import FolderStore
from genai_core.storage.owner import this_process
store, me = FolderStore(Path(sys.argv[1])), this_process("racer")
print("ready", flush=True)
sys.stdin.readline()
for n in range(40):
    try:
        print(n, acquire(store, f"k{n}", me, stale_seconds=60, wait=False).attempt)
    except TransientError:
        pass
sys.stdout.flush()
sys.stdin.readline()
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() in {"held\n", "ready\n"}
    return child


def take(store: FolderStore, **options: Any) -> Claim:
    claim = acquire(store, KEY, options.pop("owner", ME), stale_seconds=options.pop("stale_seconds", 60), **options)
    assert isinstance(claim, Claim)
    return claim


def events(store: FolderStore) -> list[tuple[str, int]]:
    log = ClaimLog(store, KEY)
    log.refresh()
    return [(record.event.value, record.attempt) for record in log.records]


def test_a_claim_is_held_committed_and_found(folder: FolderStore) -> None:
    claim = take(folder)
    with pytest.raises(TransientError, match="attempt 1 of this test on"):
        take(folder, wait=False)
    claim.commit(MANIFEST)
    assert folder.get(manifest_path(KEY)) == MANIFEST
    assert acquire(folder, KEY, ME, stale_seconds=60) == Published(KEY, 1, MANIFEST)
    assert events(folder) == [("claimed", 1), ("committing", 1), ("committed", 1)]


def test_a_released_claim_is_free_at_once(folder: FolderStore) -> None:
    take(folder).release("the job failed")
    second = take(folder, wait=False)
    assert second.attempt == 2
    second.commit(MANIFEST.replace(b"a1", b"a2"))
    second.release("too late to matter")
    assert events(folder)[-1] == ("committed", 2)


@pytest.mark.parametrize("dead_holders", [False, True])
def test_one_of_many_processes_gets_each_claim(folder: FolderStore, dead_holders: bool) -> None:
    if dead_holders:
        owner = dead_owner()
        for n in range(40):
            acquire(folder, f"k{n}", owner, stale_seconds=60)
    racers = [start(RACER, folder.root) for _ in range(4)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    lines: list[str] = []
    wanted = 2 if dead_holders else 1
    # every racer stays alive until all are done: a claim of one that has left would rightly be taken over
    readers = [threading.Thread(target=lambda out=racer.stdout: lines.extend(out)) for racer in racers]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 30
    while len(lines) < 40 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.wait()
    for reader in readers:
        reader.join()
    assert sorted(line.split() for line in lines) == sorted([str(n), str(wanted)] for n in range(40))


def test_a_waiting_run_reuses_what_the_holder_publishes(folder: FolderStore) -> None:
    claim, seen = take(folder), []
    timer = threading.Timer(0.4, claim.commit, [MANIFEST])
    timer.start()
    got = acquire(folder, KEY, ME, stale_seconds=60, on_wait=seen.append, poll_seconds=0.05)
    timer.join()
    assert got == Published(KEY, 1, MANIFEST)
    assert seen and "this test" in seen[0]


def test_a_waiting_run_can_be_stopped(folder: FolderStore) -> None:
    take(folder)
    with pytest.raises(InterruptedRunError, match="attempt 1"):
        acquire(folder, KEY, ME, stale_seconds=60, should_stop=lambda: True)


def test_a_killed_process_is_taken_over_at_once(folder: FolderStore) -> None:
    child = start(HOLDER, folder.root, KEY)
    with pytest.raises(TransientError):
        take(folder, wait=False)
    child.kill()
    child.wait()
    began = time.monotonic()
    assert take(folder).attempt == 2
    assert time.monotonic() - began < 1


def test_a_zombie_is_gone_and_another_boot_is_not_known(folder: FolderStore) -> None:
    child = start(HOLDER, folder.root, KEY)
    log = ClaimLog(folder, KEY)
    log.refresh()
    owner = log.holder(1)
    assert owner is not None and not is_gone(owner)
    child.kill()
    for _ in range(100):  # not waited for: it stays a zombie
        if is_gone(owner):
            break
        time.sleep(0.05)
    assert is_gone(owner)
    assert not is_gone(owner.model_copy(update={"boot_id": "another boot"}))
    assert not is_gone(owner.model_copy(update={"host": "another machine"}))
    assert not is_gone(owner.model_copy(update={"pid": 0}))
    assert is_gone(this_process().model_copy(update={"process_start_time": 1})), "the number was given to a new process"
    child.wait()


def test_a_stopped_process_loses_its_claim_and_cannot_publish_when_it_wakes(folder: FolderStore) -> None:
    child = start(HOLDER, folder.root, KEY)
    child.send_signal(signal.SIGSTOP)
    second = take(folder, stale_seconds=0.6, poll_seconds=0.1)
    assert second.attempt == 2
    child.send_signal(signal.SIGCONT)
    out, _ = child.communicate("publish\n")
    assert out.startswith("lost ") and "taken over" in out
    assert folder.get(manifest_path(KEY)) is None
    second.commit(MANIFEST.replace(b"a1", b"a2"))
    assert folder.get(manifest_path(KEY)) == b'{"base": "a2"}'


def test_a_process_that_beats_keeps_its_claim_and_publishes(folder: FolderStore) -> None:
    child = start(HOLDER, folder.root, KEY)
    stop_at = time.monotonic() + 1.5
    with pytest.raises(InterruptedRunError):
        take(folder, stale_seconds=0.6, poll_seconds=0.1, should_stop=lambda: time.monotonic() > stop_at)
    out, _ = child.communicate("publish\n")
    assert out == "published\n"
    assert isinstance(acquire(folder, KEY, ME, stale_seconds=0.6), Published)


def test_a_holder_that_sleeps_inside_the_commit_cannot_publish(tmp_path: Path) -> None:
    plain = FolderStore(tmp_path)

    def take_over(operation: str, path: str) -> None:
        if operation == "put_if_absent" and path.endswith("000002.json") and not plain.get(path):
            # the holder has checked that the claim is its own, and is stopped right here
            assert take(plain).attempt == 2

    sleeper = take(HookedStore(tmp_path, take_over), owner=dead_owner())
    with pytest.raises(ClaimLostError):
        sleeper.commit(MANIFEST)
    assert sleeper.lost
    assert plain.get(manifest_path(KEY)) is None
    assert events(plain) == [("claimed", 1), ("claimed", 2)]


def test_a_heartbeat_notices_the_takeover(folder: FolderStore) -> None:
    claim = take(folder, owner=dead_owner())
    claim.check()
    take(folder)
    told: list[ClaimLostError] = []
    claim.start_heartbeat(0.05, on_lost=told.append)
    for _ in range(100):
        if told:
            break
        time.sleep(0.05)
    assert len(told) == 1
    with pytest.raises(ClaimLostError, match="Attempt 1"):
        claim.check()
    claim.stop_heartbeat()
    claim.release("nothing to give up")
    assert events(folder) == [("claimed", 1), ("claimed", 2)]


def test_a_commit_that_was_begun_is_rolled_forward(tmp_path: Path) -> None:
    def die(operation: str, path: str) -> None:
        if path == manifest_path(KEY):
            raise Crash

    dying = take(HookedStore(tmp_path, die), owner=dead_owner())
    with pytest.raises(Crash):
        dying.commit(MANIFEST)
    plain = FolderStore(tmp_path)
    assert plain.get(manifest_path(KEY)) is None
    assert acquire(plain, KEY, ME, stale_seconds=60) == Published(KEY, 1, MANIFEST)
    assert plain.get(manifest_path(KEY)) == MANIFEST
    assert events(plain)[-1] == ("committed", 1)


def test_a_manifest_is_not_brought_back_by_one_who_slept_through_its_retirement(tmp_path: Path) -> None:
    plain = FolderStore(tmp_path)

    def sleep_through_it_all(operation: str, path: str) -> None:
        if path == manifest_path(KEY) and operation == "put_if_absent" and not plain.get(retired_path(KEY, 1)):
            assert isinstance(acquire(plain, KEY, ME, stale_seconds=60), Published)
            plain.put_if_absent(retired_path(KEY, 1), MANIFEST)
            plain.delete(manifest_path(KEY))

    take(HookedStore(tmp_path, sleep_through_it_all), owner=dead_owner()).commit(MANIFEST)
    assert plain.get(manifest_path(KEY)) is None
    assert take(plain, wait=False).attempt == 2


def test_a_claim_goes_to_another_process_as_json(folder: FolderStore) -> None:
    flow = take(folder)
    flow.start_heartbeat(0.05)
    job = Claim.from_json(folder, json.loads(json.dumps(flow.to_json())))
    job.start_heartbeat(0.05)
    time.sleep(0.15)
    job.commit(MANIFEST)
    time.sleep(0.15)
    assert not flow.lost
    flow.stop_heartbeat()
    flow.release("the job has published already")
    assert events(folder) == [("claimed", 1), ("committing", 1), ("committed", 1)]
    with pytest.raises(ClaimLostError):
        flow.commit(b'{"base": "a1", "again": 1}')
    assert folder.get(manifest_path(KEY)) == MANIFEST


def test_a_flow_that_gives_up_stops_its_job(folder: FolderStore) -> None:
    flow = take(folder)
    job = Claim.from_json(folder, flow.to_json())
    flow.release("interrupted")
    job.look()
    with pytest.raises(ClaimLostError):
        job.commit(MANIFEST)


def test_an_owner_without_a_process_lives_by_its_heartbeat(folder: FolderStore) -> None:
    owner = dead_owner().model_copy(update={"pid": 0})
    claim = take(folder, owner=owner)
    claim.start_heartbeat(0.1)
    with pytest.raises(TransientError):
        take(folder, wait=False)
    for _ in range(100):
        if folder.get(heartbeat_path(KEY, 1)) is not None:
            break
        time.sleep(0.02)
    claim.stop_heartbeat()
    assert folder.get(heartbeat_path(KEY, 1)) is not None
    assert take(folder, stale_seconds=0.3, poll_seconds=0.05).attempt == 2


class Forgetful(FolderStore):
    """Writes, and then says that another was faster: a lost answer that was retried."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        super().put_if_absent(path, data)
        return False


def test_a_lost_answer_is_not_a_lost_claim(tmp_path: Path) -> None:
    claim = take(Forgetful(tmp_path))
    claim.commit(MANIFEST)
    assert events(FolderStore(tmp_path)) == [("claimed", 1), ("committing", 1), ("committed", 1)]


def test_a_damaged_record_is_named(folder: FolderStore) -> None:
    take(folder)
    folder.put(f"claims/{KEY}/000001.json", b'{"event": "cla')
    with pytest.raises(IntegrityError, match=r"000001\.json"):
        take(folder)


def test_trouble_with_the_store_does_not_stop_the_heartbeat(tmp_path: Path) -> None:
    from genai_core.errors import StorageError

    broken = threading.Event()

    def fail(operation: str, path: str) -> None:
        if broken.is_set() and "heartbeat" in path:
            raise StorageError("the disk is away")

    claim = take(HookedStore(tmp_path, fail))
    broken.set()
    claim.start_heartbeat(0.05)
    time.sleep(0.2)
    assert claim.trouble == "the disk is away"
    broken.clear()
    time.sleep(0.2)
    assert claim.trouble == "" and not claim.lost
    claim.commit(MANIFEST)
    assert Event.COMMITTED in {record.event for record in _records(tmp_path)}


def _records(root: Path) -> list[Any]:
    log = ClaimLog(FolderStore(root), KEY)
    log.refresh()
    return log.records
