"""Where the key that signs tokens comes from, and what is said when it is not usable."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from snowmelt_operator.cluster import ClusterRefusedError
from snowmelt_operator.settings import Settings, SettingsError
from snowmelt_operator.signing import load_key
from tests.unit.progress.snapshots import NOON


class Secrets:
    """The two calls that keep a Secret; one that is immutable refuses other data, as the API server does."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None

    async def apply(self, manifest: dict[str, Any]) -> None:
        if self.stored is not None and self.stored.get("immutable"):
            raise ClusterRefusedError("field is immutable when `immutable` is set", status=422, reason="Invalid")
        self.stored = manifest

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        seen = self.stored
        await asyncio.sleep(0)  # others get their turn, as during a request
        return seen


def settings(**given: Any) -> Settings:
    return Settings(launcher="ray", operator_namespace="ops", token_secret="key", **given)


async def test_replicas_that_start_together_agree_on_one_key() -> None:
    store: Any = Secrets()
    first, second = await asyncio.gather(load_key(settings(), store), load_key(settings(), store))
    token = first.issue(uid="uid-1", namespace="team", name="shoes", attempt=1, expires_at=NOON + timedelta(hours=1))
    assert second.verify(token, now=NOON).uid == "uid-1"


async def test_an_empty_secret_of_the_chart_is_filled_and_never_again() -> None:
    store: Any = Secrets()
    store.stored = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    await load_key(settings(), store)
    filled = store.stored
    assert filled["immutable"]
    await load_key(settings(), store)
    assert store.stored is filled


async def test_a_secret_without_a_key_is_named_with_the_remedy() -> None:
    store: Any = Secrets()
    store.stored = {"data": {"other": "AAAA"}}
    with pytest.raises(SettingsError, match=r"Secret ops/key .*delete it"):
        await load_key(settings(), store)


async def test_a_short_key_is_refused_with_its_length(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    store: Any = Secrets()
    with pytest.raises(SettingsError, match=r"5 bytes.*at least 32"):
        await load_key(settings(token_key_file=tmp_path / "key"), store)


async def test_a_key_file_that_is_absent_is_named(tmp_path: Path) -> None:
    store: Any = Secrets()
    with pytest.raises(SettingsError, match=r"absent\.key"):
        await load_key(settings(token_key_file=tmp_path / "absent.key"), store)
