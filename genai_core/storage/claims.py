"""Claims: who computes a key now. An append-only log per key, whose records are each created only if absent.

    claims/<key>/000001.json  {"event": "claimed",    "attempt": 1, "owner": {...}}
                 000002.json  {"event": "committing", "attempt": 1, "manifest": "..."}
                 000003.json  {"event": "committed",  "attempt": 1}

The next record goes into the next free slot and nowhere else; that exclusive create is the only synchronisation. A
holder remembers the slot of its own last record. If another has written behind it, the slot it would commit into is
taken, so a process that was stopped, lost its claim and woke up again cannot publish, whatever it believes. Once
`committing` is written the outcome is decided: whoever comes next rolls it forward.

A holder is dead if its process is gone (same machine, same boot: known at once) or if its heartbeat has not changed
for `stale_seconds` of the watcher's own monotonic clock; clocks of different machines are never compared. The owner
in the record is the process that acquired the claim. Where a flow process acquires it and hands it to a job process
(`to_json`, `from_json`), the claim lives as long as the flow process does and somebody's heartbeat moves: a job that
outlives its flow has lost its claim as soon as another run of that machine wants the key. For a job that shall
survive its flow (a cluster), acquire with an owner of pid 0, and let the job beat.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Event as Signal
from threading import Thread
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from genai_core.errors import ClaimLostError, GenaiCoreError, IntegrityError, InterruptedRunError, TransientError
from genai_core.storage.layout import heartbeat_path, manifest_path, record_path, retired_path
from genai_core.storage.objects import ObjectStore
from genai_core.storage.owner import Owner, is_gone


class Event(StrEnum):
    """What a record says."""

    CLAIMED = "claimed"
    COMMITTING = "committing"
    COMMITTED = "committed"
    RELEASED = "released"
    DISCARDED = "discarded"


class Record(BaseModel):
    """One line of the log. `at` is told for people; nothing is decided by it but ages of days."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event: Event
    attempt: int
    owner: Owner | None = None
    at: float
    nonce: str
    manifest: str = ""
    reason: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """The key has an artifact already; `manifest` is its manifest."""

    key: str
    attempt: int
    manifest: bytes


class ClaimLog:
    """The records of one key, as far as they have been read. Records never change, so each is read once."""

    def __init__(self, objects: ObjectStore, key: str) -> None:
        self._objects = objects
        self.key = key
        self.records: list[Record] = []

    def refresh(self) -> Record | None:
        """Read what is new; return the last record, None if there is none."""
        while (data := self._objects.get(record_path(self.key, len(self.records) + 1))) is not None:
            self.records.append(parse_record(data, self.key, len(self.records) + 1))
        return self.records[-1] if self.records else None

    def append(self, record: Record) -> bool:
        """Write a record behind the last one read; return False if another was faster."""
        if not append_record(self._objects, self.key, len(self.records) + 1, record):
            return False
        self.records.append(record)
        return True

    def attempts(self) -> int:
        """Return the highest attempt so far."""
        return max((record.attempt for record in self.records), default=0)

    def manifest(self, attempt: int) -> bytes | None:
        """Return the manifest that an attempt decided to publish, None if it did not come so far."""
        for record in reversed(self.records):
            if record.attempt == attempt and record.event is Event.COMMITTING:
                return record.manifest.encode()
        return None

    def holder(self, attempt: int) -> Owner | None:
        """Return who claimed an attempt."""
        for record in reversed(self.records):
            if record.attempt == attempt and record.event is Event.CLAIMED:
                return record.owner
        return None


def parse_record(data: bytes, key: str, sequence: int) -> Record:
    """Return a record from its bytes. Raises IntegrityError naming it."""
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        path = record_path(key, sequence)
        raise IntegrityError(
            f"{path} is not a record of a claim ({error.error_count()} faults). It is damaged: delete claims/{key}/ "
            "while no run uses the store, and run again."
        ) from error


def append_record(objects: ObjectStore, key: str, sequence: int, record: Record) -> bool:
    """Write a record into a slot; return whether it is ours that stands there.

    A store whose answer was lost may report our own write as another's: the nonce tells.
    """
    path, data = record_path(key, sequence), record.model_dump_json(exclude_defaults=True).encode()
    return objects.put_if_absent(path, data) or objects.get(path) == data


def new_record(event: Event, attempt: int, **fields: object) -> Record:
    """Return a record of now."""
    return Record.model_validate(
        {"event": event, "attempt": attempt, "at": time.time(), "nonce": uuid.uuid4().hex, **fields}
    )


def settle(objects: ObjectStore, key: str, attempt: int, manifest: bytes) -> None:
    """Write the manifest that the log has decided on, unless it is there, or retired again."""
    path = manifest_path(key)
    while not objects.put_if_absent(path, manifest):
        there = objects.get(path)
        if there is None:
            continue  # discarded between the two calls
        if manifest_attempt(there) < attempt:
            # a process that slept through its own retirement wrote it; the log says that we come after it
            objects.put(path, manifest)
        break
    if objects.get(retired_path(key, attempt)) is not None and objects.get(path) == manifest:
        objects.delete(path)


def manifest_attempt(manifest: bytes) -> int:
    """Return the attempt that a manifest publishes, 0 if it cannot be read."""
    try:
        return int(json.loads(manifest)["base"].removeprefix("a"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0


def heartbeat_time(objects: ObjectStore, key: str, attempt: int) -> float:
    """Return when an attempt last beat, by its own clock, in seconds since the epoch; 0 if it never did."""
    beat = objects.get(heartbeat_path(key, attempt))
    return float(json.loads(beat)["at"]) if beat else 0.0


class Claim:
    """The right to publish one key, until another takes it over."""

    def __init__(self, objects: ObjectStore, key: str, attempt: int, sequence: int) -> None:
        self._objects = objects
        self.key = key
        self.attempt = attempt
        self.sequence = sequence
        """Slot of our own last record."""
        self.trouble = ""
        """Why the last heartbeat could not be written; '' if it could."""
        self._seen = sequence
        self._lost = Signal()
        self._stop = Signal()
        self._thread: Thread | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"Claim({self.key[:12]}, attempt={self.attempt}, sequence={self.sequence})"

    def to_json(self) -> dict[str, Any]:
        """Return, as JSON, what another process needs to take this claim on; hand it over before it is committed."""
        return {"key": self.key, "attempt": self.attempt, "sequence": self.sequence}

    @staticmethod
    def from_json(objects: ObjectStore, state: dict[str, Any]) -> Claim:
        """Return the claim that another process acquired."""
        return Claim(objects, **state)

    @property
    def lost(self) -> bool:
        """Return whether a newer attempt has been seen."""
        return self._lost.is_set()

    def check(self) -> None:
        """Do nothing while the claim is not known to be lost. Raises ClaimLostError."""
        if self.lost:
            raise ClaimLostError(
                f"Attempt {self.attempt} of {self.key[:12]} was taken over by another run; this one publishes nothing. "
                "Wait for the other, then run again: its result is reused."
            )

    def look(self) -> None:
        """Read the log behind our last record; set `lost` if it says that this attempt publishes no more."""
        while not self.lost and (data := self._objects.get(record_path(self.key, self._seen + 1))) is not None:
            self._seen += 1
            record = parse_record(data, self.key, self._seen)
            if record.attempt != self.attempt or record.event in {Event.RELEASED, Event.DISCARDED}:
                self._lost.set()
            elif record.event is Event.COMMITTED:
                self._stop.set()  # published, by the process that this claim was handed to

    def start_heartbeat(
        self, seconds: float = 2.0, on_lost: Callable[[ClaimLostError], None] = lambda error: None
    ) -> None:
        """Beat from a daemon thread, first at once, until committed, released, stopped or lost.

        More than one process may beat for a claim: the one that acquired it and the one it was handed to. `on_lost` is
        called in the thread when the claim is found to be lost.
        """
        if self._thread is None:
            name = f"claim-{self.key[:8]}"
            self._thread = Thread(target=self._beat, args=(seconds, on_lost), name=name, daemon=True)
            self._thread.start()

    def stop_heartbeat(self) -> None:
        """Stop beating; the claim stays ours until another finds it stale."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def commit(self, manifest: bytes) -> None:
        """Publish: decide in the log, write the manifest, close the log. Files must already be in the store.

        Raises ClaimLostError, and publishes nothing, if another attempt stands behind our last record.
        """
        self.check()
        record = new_record(Event.COMMITTING, self.attempt, manifest=manifest.decode())
        if not append_record(self._objects, self.key, self.sequence + 1, record):
            self._lost.set()
            self.check()
        self.sequence += 1
        self._ended = True
        settle(self._objects, self.key, self.attempt, manifest)
        # if the slot is taken, another has rolled this very commit forward
        append_record(self._objects, self.key, self.sequence + 1, new_record(Event.COMMITTED, self.attempt))
        self._end()

    def release(self, reason: str) -> None:
        """Give the claim up, so that the next one need not wait; nothing happens once it is lost or committed."""
        if not self._ended and not self.lost:
            record = new_record(Event.RELEASED, self.attempt, reason=reason)
            append_record(self._objects, self.key, self.sequence + 1, record)
            self._ended = True
        self._end()

    def _end(self) -> None:
        self.stop_heartbeat()
        self._objects.delete(heartbeat_path(self.key, self.attempt))

    def _beat(self, seconds: float, on_lost: Callable[[ClaimLostError], None]) -> None:
        count, me = 0, uuid.uuid4().hex[:8]
        while not self._stop.is_set():
            try:
                self.look()
                self.check()
                count += 1
                beat = json.dumps({"by": me, "count": count, "at": time.time()})
                self._objects.put(heartbeat_path(self.key, self.attempt), beat.encode())
                self.trouble = ""
            except ClaimLostError as error:
                on_lost(error)
                return
            except GenaiCoreError as error:
                # a missed beat costs at worst the claim, and that is noticed at the commit
                self.trouble = str(error)
            self._stop.wait(seconds)


class Watch:
    """Looks at one holder again and again, and says when it must be dead."""

    def __init__(self, objects: ObjectStore, key: str, stale_seconds: float) -> None:
        self._objects = objects
        self._key = key
        self._stale_seconds = stale_seconds
        self._signs: object = None
        self._since = 0.0

    def is_dead(self, log: ClaimLog) -> bool:
        """Return whether the holder of the log's last record is dead, as far as seen from here."""
        attempt = log.records[-1].attempt
        owner = log.holder(attempt)
        if owner is not None and is_gone(owner):
            return True
        # the time is taken before the look: if we are the ones who were stopped, the holder must not pay for it
        now = time.monotonic()
        signs = (len(log.records), self._objects.get(heartbeat_path(self._key, attempt)))
        if signs != self._signs:
            self._signs, self._since = signs, now
            return False
        return now - self._since > self._stale_seconds


def acquire(
    objects: ObjectStore,
    key: str,
    owner: Owner,
    *,
    stale_seconds: float,
    on_wait: Callable[[str], None] | None = None,
    wait: bool = True,
    should_stop: Callable[[], bool] | None = None,
    inputs: Sequence[str] = (),
    poll_seconds: float = 0.5,
) -> Claim | Published:
    """Return the claim of a key, or what is published for it, whichever comes first; wait for a live holder.

    Args:
        objects: the store.
        key: stage key.
        owner: who will hold it; `owner.this_process(...)`.
        stale_seconds: a holder whose heartbeat stands still for so long is dead.
        on_wait: called with a description of the holder at every poll while waiting.
        wait: False raises TransientError instead of waiting.
        should_stop: asked at every poll; True raises InterruptedRunError.
        inputs: keys of the artifacts this attempt reads; the garbage collection keeps them while the claim lives.
        poll_seconds: time between two looks at a live holder.
    """
    log = ClaimLog(objects, key)
    watch = Watch(objects, key, stale_seconds)
    while True:
        last = log.refresh()
        free = last is None or is_free(objects, key, last)
        if last is not None and not free:
            if last.event is Event.COMMITTED:
                return _published(objects, log, last)
            dead = watch.is_dead(log)
            if last.event is Event.COMMITTING and (dead or objects.get(manifest_path(key)) is not None):
                log.append(new_record(Event.COMMITTED, last.attempt, reason="rolled forward"))
                continue
            if not dead:
                holder = _holder(log, last)
                if not wait:
                    raise TransientError(f"{key[:12]} is being computed by {holder}. Wait for it and run again.")
                if on_wait is not None:
                    on_wait(holder)
                _sleep(poll_seconds, holder, should_stop)
                continue
        reason = "" if free else "the holder before is dead"
        fresh = new_record(Event.CLAIMED, log.attempts() + 1, owner=owner, inputs=tuple(inputs), reason=reason)
        if log.append(fresh):
            return Claim(objects, key, fresh.attempt, len(log.records))


def is_free(objects: ObjectStore, key: str, last: Record) -> bool:
    """Return whether nobody holds the key and nothing is published for it, by its last record."""
    if last.event in {Event.RELEASED, Event.DISCARDED}:
        return True
    return last.event is Event.COMMITTED and objects.get(retired_path(key, last.attempt)) is not None


def _published(objects: ObjectStore, log: ClaimLog, last: Record) -> Published:
    manifest = log.manifest(last.attempt)
    if manifest is None:
        raise IntegrityError(
            f"claims/{log.key}/ says that attempt {last.attempt} is published, but not with which manifest. The log is "
            "damaged: delete it while no run uses the store, and run again."
        )
    settle(objects, log.key, last.attempt, manifest)
    return Published(log.key, last.attempt, manifest)


def _holder(log: ClaimLog, last: Record) -> str:
    owner = log.holder(last.attempt)
    return f"attempt {last.attempt} of {owner.label() if owner else 'an unknown run'}"


def _sleep(seconds: float, holder: str, should_stop: Callable[[], bool] | None) -> None:
    deadline = time.monotonic() + seconds
    while True:
        if should_stop is not None and should_stop():
            raise InterruptedRunError(f"Stopped while waiting for {holder}. Run again to resume.")
        if (left := deadline - time.monotonic()) <= 0:
            return
        time.sleep(min(left, 0.1))
