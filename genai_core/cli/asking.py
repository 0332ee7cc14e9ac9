"""One HTTP request to a service, and all that its answer tells: status, JSON, how far its clock is from ours."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0 where nothing did, and then `reason` says why."""

    status: int
    body: bytes = b""
    reason: str = ""
    skew_seconds: float | None = None
    """The service's clock minus ours; None where it does not tell the time. Exact to a second, as HTTP dates are."""

    @property
    def good(self) -> bool:
        """Return whether the request was served."""
        return self.status == 200

    @property
    def denied(self) -> bool:
        """Return whether credentials are missing or wrong."""
        return self.status in {401, 403}

    def json(self) -> Any:
        """Return the body as plain values, None if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def ask(
    url: str, *, method: str = "", body: Any = None, headers: Mapping[str, str] | None = None, seconds: float = 2.0
) -> Answer:
    """Return the answer of GET, or of POST where there is a body to send as JSON. Raises nothing."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    before = time.time()
    try:
        request = urllib.request.Request(url, data, sent, method=method or None)
        with urllib.request.urlopen(request, timeout=seconds) as reply:
            return Answer(reply.status, reply.read(), "", _skew(reply.headers["Date"], before))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(), error.reason, _skew(error.headers["Date"], before))
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(0, reason="no answer in time" if isinstance(reason, TimeoutError) else str(reason))


def _skew(date: str | None, before: float) -> float | None:
    """Return how far a Date header lies from our clock in the middle of the exchange, in seconds."""
    try:
        told = parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return None
    # a date has whole seconds: the moment it was written lies up to one second after it
    return told + 0.5 - (before + time.time()) / 2


def basic(credentials: str) -> dict[str, str]:
    """Return the header of HTTP's basic authentication for `user:password`; none where that is empty."""
    if not credentials:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def prefect_credentials() -> dict[str, str]:
    """Return the header that Prefect's API wants from this process."""
    return basic(os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING", ""))


def mlflow_credentials() -> dict[str, str]:
    """Return the header that an MLflow server wants from this process, as MLflow's own client finds it."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN", ""):
        return {"Authorization": f"Bearer {token}"}
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{part}", "") for part in ("USERNAME", "PASSWORD"))
    return basic(f"{name}:{password}" if name and password else "")
