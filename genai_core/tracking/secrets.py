"""What may be shown: config values and addresses without the secrets in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

MASK = "**********"

_SECRET_NAME = re.compile(
    r"(^|[_.\-])(password|passwd|secret|secret_key|secret_access_key|access_key|api_key|apikey|auth_token|access_token"
    r"|session_token|bearer|credentials?|private_key)$",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^/\s?#]*@")
_SECRET_QUERY = re.compile(
    r"(?P<name>[?&](?:[\w\-]*(?:signature|credential|password|secret|token|key))=)[^&\s#]+", re.IGNORECASE
)


def shown(address: str) -> str:
    """Return an address, or any text with addresses in it, without user names, passwords and signed query values."""
    return _SECRET_QUERY.sub(rf"\g<name>{MASK}", _CREDENTIALS.sub(r"\g<scheme>", address))


def masked(value: Any) -> Any:
    """Return a config as plain JSON without secrets.

    Masked are `SecretStr` fields, text under a name that says it is a secret (`password`, `api_key`, ...), and
    credentials inside URIs. Counts such as `max_new_tokens` are no secrets.
    """
    if isinstance(value, BaseModel):
        return masked({name: getattr(value, name) for name in type(value).model_fields})
    if isinstance(value, Mapping):
        return {
            str(name): MASK if isinstance(item, str) and item and _SECRET_NAME.search(str(name)) else masked(item)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    if isinstance(value, (SecretStr, SecretBytes)):
        return MASK
    if isinstance(value, str):
        return shown(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return shown(str(value))
