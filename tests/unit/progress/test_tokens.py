"""A token is good for one attempt at one job, until it expires, and for nobody who lacks the key."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_operator.progress.tokens import InvalidTokenError, SigningKey, expiry
from tests.unit.progress.snapshots import NOON

KEY = SigningKey(b"k" * 32)
ATTEMPT: dict[str, Any] = {"uid": "uid-1", "namespace": "team", "name": "shoes", "attempt": 2}


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    return {"uid": "uid-1", "ns": "team", "name": "shoes", "attempt": 2, "exp": 2_000_000_000} | changes


def test_a_token_says_which_attempt_it_was_issued_for() -> None:
    read = KEY.verify(KEY.issue(**ATTEMPT, expires_at=NOON + timedelta(hours=1)), now=NOON)
    assert (read.uid, read.namespace, read.name, read.attempt) == ("uid-1", "team", "shoes", 2)


def test_the_same_attempt_gets_the_same_token_again() -> None:
    started = NOON.replace(microsecond=7)
    assert KEY.issue(**ATTEMPT, expires_at=expiry(started)) == KEY.issue(**ATTEMPT, expires_at=expiry(started))


def test_a_token_is_refused_from_the_second_of_its_expiry_on() -> None:
    token = KEY.issue(**ATTEMPT, expires_at=NOON)
    KEY.verify(token, now=NOON - timedelta(seconds=1))
    with pytest.raises(InvalidTokenError, match="expired"):
        KEY.verify(token, now=NOON)


def test_a_token_of_another_key_is_refused() -> None:
    token = SigningKey(b"x" * 32).issue(**ATTEMPT, expires_at=NOON + timedelta(hours=1))
    with pytest.raises(InvalidTokenError):
        KEY.verify(token, now=NOON)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS512", "RS256"])
def test_a_token_cannot_choose_its_algorithm(algorithm: str) -> None:
    token = f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(claims())}."
    with pytest.raises(InvalidTokenError):
        KEY.verify(token, now=NOON)


def test_the_key_itself_signing_with_another_algorithm_is_refused() -> None:
    token = jwt.encode(claims(), b"k" * 64, algorithm="HS512")
    with pytest.raises(InvalidTokenError):
        SigningKey(b"k" * 64).verify(token, now=NOON)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": 0},
        {"attempt": "2"},
        {"attempt": True},
        {"uid": ""},
        {"exp": "soon"},
        {"exp": 1e300},
        {"admin": True},
    ],
)
def test_claims_that_are_not_exactly_ours_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        KEY.verify(jwt.encode(claims(**wrong), b"k" * 32, algorithm="HS256"), now=NOON)


@pytest.mark.parametrize("absent", ["uid", "ns", "name", "attempt", "exp"])
def test_a_claim_that_is_absent_makes_the_token_invalid(absent: str) -> None:
    rest = {name: value for name, value in claims().items() if name != absent}
    with pytest.raises(InvalidTokenError):
        KEY.verify(jwt.encode(rest, b"k" * 32, algorithm="HS256"), now=NOON)


@given(st.one_of(st.text(), st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True)))
def test_no_text_that_was_not_issued_is_a_token(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        KEY.verify(text, now=NOON)


def test_the_key_is_not_shown() -> None:
    secret = b"Correct-Horse-Battery-Staple-1234567"
    shown = repr(vars(SigningKey(secret))) + repr(SigningKey(secret))
    assert "Horse" not in shown


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=31)])
def test_a_lifetime_is_positive_and_bounded(lifetime: timedelta) -> None:
    with pytest.raises(ValueError, match="lifetime"):
        expiry(NOON, lifetime)
