"""The one way to Kubernetes, with `kubernetes.aio`.

Bodies travel as plain JSON over the client's connection pool; its generated models are left out, because turning a
thousand objects into models and back costs more than everything else the operator does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from snowmelt_operator.api.stored import StoredJob, read_job
from snowmelt_operator.api.v1alpha1 import API_VERSION, KIND, ObjectMeta
from snowmelt_operator.cluster import (
    FIELD_MANAGER,
    ClusterConflictError,
    ClusterRefusedError,
    ClusterUnavailableError,
    Warned,
)
from snowmelt_operator.events import Event, event_manifest

PAGE = 500
"""Objects in one page of a list."""
MAX_EVENTS = 50
LOG_LINES = 20
LOG_BYTES = 64 * 1024
"""Most bytes of these lines that are asked for."""
Verb = Literal["get", "list", "apply", "apply-status", "create", "delete", "patch"]
_PLURALS = {
    (API_VERSION, KIND): "finetunejobs",
    ("ray.io/v1", "RayJob"): "rayjobs",
    ("ray.io/v1", "RayCluster"): "rayclusters",
    ("v1", "Secret"): "secrets",
    ("events.k8s.io/v1", "Event"): "events",
    ("v1", "Pod"): "pods",
}
_CONTENT = {
    "apply": "application/apply-patch+yaml",
    "apply-status": "application/apply-patch+yaml",
    "patch": "application/json-patch+json",
}
"""Of a request's body, where it is not plain JSON."""
_WHOLE = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""For writes whose answer is not read: the API server need not send the object back."""
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_FORBIDDEN = 403
_TOO_MANY_REQUESTS = 429


class _Sent(TypedDict, total=False):
    """What goes with a request."""

    query: Mapping[str, str]
    body: dict[str, Any] | list[dict[str, Any]]
    accept: str


class KubernetesCluster:
    """The cluster that a `kubernetes.aio` configuration points at."""

    def __init__(
        self,
        configuration: client.Configuration,
        *,
        namespaces: tuple[str, ...] = (),
        identity: str = "snowmelt-operator",
        timeout_seconds: float = 30.0,
        read: Callable[[dict[str, Any]], StoredJob] = read_job,
        on_job: Callable[[StoredJob], None] = lambda _: None,
        on_request: Callable[[str, str, bool], None] = lambda _verb, _kind, _answered: None,
    ) -> None:
        """`read` parses FineTuneJobs; `on_job` hears of every FineTuneJob that a request brought back; `on_request` of
        the verb and kind of every request, and whether the API server answered."""
        self.api_client = client.ApiClient(configuration)
        self.api_client.user_agent = "snowmelt-operator"
        self._configuration = configuration
        self._namespaces = namespaces
        self._identity = identity
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=min(10.0, timeout_seconds))
        self._read = read
        self._on_job = on_job
        self._on_request = on_request

    async def aclose(self) -> None:
        await self.api_client.close()  # type: ignore[no-untyped-call]

    async def get_job(self, namespace: str, name: str) -> StoredJob | None:
        document = await self.get(API_VERSION, KIND, namespace, name)
        return None if document is None else self._heard(document)

    async def list_jobs(self) -> list[StoredJob]:
        return [self._heard(document) for document in await self.list_objects(API_VERSION, KIND)]

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._request("get", kind, _path(api_version, kind, namespace, name))
        except ClusterRefusedError as error:
            if error.status == 404:
                return None
            raise

    async def list_objects(self, api_version: str, kind: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for namespace in self._namespaces or (None,):
            query = {"limit": str(PAGE)} | ({"labelSelector": label_selector} if label_selector else {})
            while True:
                page = await self._request("list", kind, _path(api_version, kind, namespace), query=query)
                # Items of a list carry neither apiVersion nor kind.
                found += [{"apiVersion": api_version, "kind": kind} | item for item in page["items"]]
                if not (token := page["metadata"].get("continue")):
                    break
                query["continue"] = token
        return found

    async def apply(self, manifest: dict[str, Any], *, field_manager: str = FIELD_MANAGER) -> None:
        metadata = manifest["metadata"]
        path = _path(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])
        query = {"fieldManager": field_manager, "force": "true"}
        await self._request("apply", manifest["kind"], path, query=query, body=manifest, accept=_METADATA)

    async def create(self, manifest: dict[str, Any]) -> bool:
        path = _path(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["namespace"])
        try:
            query = {"fieldManager": FIELD_MANAGER}
            await self._request("create", manifest["kind"], path, query=query, body=manifest, accept=_METADATA)
        except ClusterRefusedError as error:
            if error.reason == "AlreadyExists":
                return False
            raise
        return True

    async def change(
        self, api_version: str, kind: str, namespace: str, name: str, operations: list[dict[str, Any]]
    ) -> bool:
        path, query = _path(api_version, kind, namespace, name), {"fieldManager": FIELD_MANAGER}
        try:
            await self._request("patch", kind, path, query=query, body=operations, accept=_METADATA)
        except ClusterRefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def delete(self, api_version: str, kind: str, namespace: str, name: str, *, uid: str | None = None) -> bool:
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("delete", kind, _path(api_version, kind, namespace, name), body=options)
        except ClusterRefusedError as error:
            # A conflict is the precondition's: the object of that uid is gone, and another has its name.
            if error.status == 404 or (uid is not None and error.status == 409):
                return False
            raise
        return True

    async def apply_status(
        self, job: ObjectMeta, status: dict[str, Any], *, field_manager: str = FIELD_MANAGER
    ) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            # The version, and not the uid, which the status subresource does not look at: without it, what was decided
            # on a job would be written to another one that was created under its name meanwhile.
            "metadata": {"name": job.name, "namespace": job.namespace, "resourceVersion": job.resource_version},
            "status": status,
        }
        path = _path(API_VERSION, KIND, job.namespace, job.name) + "/status"
        query = {"fieldManager": field_manager, "force": "true"}
        self._heard(await self._request("apply-status", KIND, path, query=query, body=body))

    async def record_event(self, event: Event, now: datetime) -> None:
        await self.create(event_manifest(event, now, reporter=self._identity))

    async def watch_refused(self, api_version: str, kind: str, *, label_selector: str) -> str | None:
        selected = {"labelSelector": label_selector}
        for namespace in self._namespaces or (None,):
            path = _path(api_version, kind, namespace)
            try:
                page = await self._request("list", kind, path, query=selected | {"limit": "1"}, accept=_METADATA_LIST)
                version = page["metadata"]["resourceVersion"]
                brief = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "1"}
                _granted(*await self._send("list", kind, path, query=selected | brief), f"watch {path}")
            except ClusterRefusedError as error:
                if error.status != _FORBIDDEN:
                    raise
                return str(error)
        return None

    async def warnings_about(self, namespace: str, regarding: Mapping[str, str]) -> list[Warned]:
        fields = [*(f"regarding.{name}={value}" for name, value in regarding.items()), "type=Warning"]
        query = {"fieldSelector": ",".join(fields), "limit": str(MAX_EVENTS)}
        page = await self._request("list", "Event", _path("events.k8s.io/v1", "Event", namespace), query=query)
        return [_warned(item) for item in page["items"]]

    async def log_tail(self, namespace: str, pod: str, container: str, *, previous: bool) -> bytes:
        query = {"container": container, "tailLines": str(LOG_LINES), "limitBytes": str(LOG_BYTES)}
        query |= {"previous": "true"} if previous else {}
        path = _path("v1", "Pod", namespace, pod) + "/log"
        return _granted(*await self._send("get", "Pod", path, query=query), f"get {path}")

    def _heard(self, document: dict[str, Any]) -> StoredJob:
        job = self._read(document)
        self._on_job(job)
        return job

    async def _request(self, verb: Verb, kind: str, path: str, **sent: Unpack[_Sent]) -> dict[str, Any]:
        status, content = await self._send(verb, kind, path, **sent)
        return _object(status, _granted(status, content, f"{verb} {path}"), f"{verb} {path}")

    async def _send(self, verb: Verb, kind: str, path: str, **sent: Unpack[_Sent]) -> tuple[int, bytes]:
        query = sent.get("query")
        method = {"get": "GET", "list": "GET", "create": "POST", "delete": "DELETE"}.get(verb, "PATCH")
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        answered = False
        try:
            headers = await self._headers(_CONTENT.get(verb, "application/json"), sent.get("accept", _WHOLE))
            response = await self.api_client.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=sent.get("body"), _request_timeout=self._timeout
            )
            content = await response.read()
            answered = True
        except (aiohttp.ClientError, TimeoutError, OSError, ApiException) as error:
            reason = str(error) or type(error).__name__
            raise ClusterUnavailableError(
                f"the API server {self._configuration.host} cannot be reached: {reason}"
            ) from error
        finally:
            self._on_request(verb, kind, answered)
        return response.status, content

    async def _headers(self, content_type: str, accept: str) -> dict[str, str]:
        headers = {
            "Accept": accept,
            "Content-Type": content_type,
            "User-Agent": self.api_client.user_agent,
        }
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return headers | ({"Authorization": token} if token else {})


def _path(api_version: str, kind: str, namespace: str | None, name: str | None = None) -> str:
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{_PLURALS[api_version, kind]}" + (f"/{name}" if name else "")


def _warned(event: dict[str, Any]) -> Warned:
    made = datetime.fromisoformat(event["metadata"]["creationTimestamp"])
    return Warned(event.get("reason", ""), event.get("note", ""), made)


def _granted(status: int, content: bytes, request: str) -> bytes:
    """The content of an answer that refuses nothing."""
    if status < 400:
        return content
    document = _object(status, content, request)
    message = f"{request}: {document.get('message', '')} ({status})"
    if status >= 500 or status == _TOO_MANY_REQUESTS:
        raise ClusterUnavailableError(message)
    reason = str(document.get("reason", ""))
    refusal = ClusterConflictError if reason == "Conflict" else ClusterRefusedError
    raise refusal(message, status=status, reason=reason)


def _object(status: int, content: bytes, request: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ClusterUnavailableError(
            f"{request}: the API server answered {status} with something that is not an object"
        )
    return document
