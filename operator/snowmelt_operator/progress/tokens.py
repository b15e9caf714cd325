"""Bearer tokens that are good for one attempt at one job alone.

A token is a JSON Web Token (RFC 7519) signed with HMAC-SHA256, so that any replica with the key can check it without
asking the API server. Its expiry follows from when the attempt started: the same attempt always gets the same token.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from pydantic import BaseModel, ConfigDict, Field, SecretBytes, StringConstraints, ValidationError

ALGORITHM = "HS256"
"""The only algorithm; what a token's header says is never believed (RFC 8725, section 3.1)."""
MIN_KEY_BYTES = 32
"""RFC 7518, section 3.2: as long as the hash at least."""
MAX_LIFETIME = timedelta(days=30)
"""Longest time a token is good for."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class InvalidTokenError(Exception):
    """A token that is malformed, forged or expired; the message may be shown to whoever sent it."""


class Claims(BaseModel):
    """Which attempt at which job a token speaks for, and until when (seconds since 1970, UTC)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)

    uid: Text
    namespace: Text = Field(alias="ns")
    name: Text
    attempt: Annotated[int, Field(ge=1)]
    exp: Annotated[int, Field(ge=0)]


class SigningKey:
    """The operator's key; it is not shown by print, logging or tracebacks."""

    def __init__(self, key: bytes) -> None:
        """Take the key as it is stored.

        Raises:
            ValueError: for fewer than 32 bytes.
        """
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(
                f"the key that signs progress tokens has {len(key)} bytes: it needs at least {MIN_KEY_BYTES}"
            )
        self._key = SecretBytes(key)

    def issue(self, *, uid: str, namespace: str, name: str, attempt: int, expires_at: datetime) -> str:
        """The token for one attempt; the same arguments give the same token."""
        claims = Claims(uid=uid, namespace=namespace, name=name, attempt=attempt, exp=int(expires_at.timestamp()))
        return jwt.encode(claims.model_dump(by_alias=True), self._key.get_secret_value(), algorithm=ALGORITHM)

    def verify(self, token: str, *, now: datetime) -> Claims:
        """What a token says, when this key signed it and it has not expired.

        Raises:
            InvalidTokenError: in every other case.
        """
        try:
            decoded = jwt.decode(
                token, self._key.get_secret_value(), algorithms=[ALGORITHM], options={"verify_exp": False}
            )
            claims = Claims.model_validate(decoded, by_alias=True, by_name=False)
        except (jwt.PyJWTError, ValidationError, ValueError, RecursionError) as error:
            raise InvalidTokenError("the token is not one that this operator signed") from error
        if now.timestamp() >= claims.exp:
            ended = datetime.fromtimestamp(claims.exp, UTC).isoformat()
            raise InvalidTokenError(
                f"the token expired at {ended}: it is good for one attempt, started anew it gets another"
            )
        return claims


def expiry(started_at: datetime, lifetime: timedelta = MAX_LIFETIME) -> datetime:
    """When the token of an attempt that started then ends, in whole seconds.

    Raises:
        ValueError: for a lifetime that is not positive, or longer than `MAX_LIFETIME`.
    """
    if not timedelta() < lifetime <= MAX_LIFETIME:
        raise ValueError(f"a token's lifetime must be positive and at most {MAX_LIFETIME}")
    return (started_at + lifetime).replace(microsecond=0)
