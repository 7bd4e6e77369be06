"""Requests over a real socket: every answer is JSON, every error a metav1.Status."""

import asyncio
import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apihttp_testing import CONFIGS, OURS, TOKEN, service, serving
from modelyard.base.clock import SystemClock

ACCESS = (
    "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "/api/v1/namespaces/default/serviceaccounts/x/token",
    "/api/v1/namespaces/default/serviceaccounts",
)
BODIES = (
    b'{"metadata":{"name":"x"},"roleRef":{"kind":"Role","name":"x"},"subjects":[{"kind":"User","name":"a"}]}',
    b'{"metadata":{"name":"x"},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["x"]}]}',
    b'{"spec":{"user":"a","resourceAttributes":{"verb":"get"}}}',
    b'{"spec":{"audiences":["a"],"expirationSeconds":1e3}}',
    b'{"metadata":{"name":"x"},"roleRef":{"kind":"Role","name":null},"subjects":null}',
)


async def test_everybody_must_bear_the_token_but_for_health() -> None:
    async with serving() as web:
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            async with web.session.get(web.url + path) as answer:
                assert answer.status == 200
        for value in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer \udcff"):
            code, found = await web.ask("GET", "/api/v1/secrets", headers={"Authorization": value})
            assert (code, found["reason"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/pods", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/none", 404),
        ("GET", "/%ff%fe", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/%00", 404),
        ("GET", "/openapi/v3/apis/none/v1", 404),
        ("POST", "/api/v1/configmaps", 405),
        ("PUT", CONFIGS, 405),
        ("POST", f"{CONFIGS}/c", 405),
        ("DELETE", f"{OURS}/models/m/status", 405),
        ("TRACE", CONFIGS, 405),
        ("POST", "/version", 405),
        ("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/models.modelyard.dev", 405),
        ("DELETE", "/api/v1/namespaces", 405),
        ("DELETE", "/api/v1/namespaces/default", 403),
        ("GET", f"{CONFIGS}?labelSelector=a%20b%20c", 400),
        ("GET", f"{CONFIGS}?fieldSelector=data.x%3D1", 400),
        ("GET", f"{CONFIGS}?continue=x", 400),
        ("GET", f"{CONFIGS}?limit=many", 400),
        ("GET", f"{CONFIGS}?watch=1&resourceVersion=x", 400),
        ("GET", f"{CONFIGS}?watch=1&resourceVersion=99999", 410),
        ("GET", f"{CONFIGS}?resourceVersion=99999", 504),
        ("GET", f"{CONFIGS}?resourceVersion=99999&resourceVersionMatch=Exact", 504),
    ],
)
async def test_what_cannot_be_served_is_refused_with_a_status(method: str, path: str, code: int) -> None:
    async with serving() as web:
        assert (await web.ask(method, path))[0] == code


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'"\xff"', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"metadata": {"name": "a\\u0000"}}', "application/json", 400),
        (b'{"metadata": {"name": "\\ud800"}}', "application/json", 400),
        (b'{"metadata": [], "data": 1e999}', "application/json", 400),
        (b'{"metadata": {"name": "x", "namespace": "other"}}', "application/json", 400),
        (b'{"metadata": {"name": "x", "resourceVersion": "1"}}', "application/json", 400),
        (b'{"metadata": {"name": "x"}, "kind": "Secret"}', "application/json", 400),
        (b'{"metadata": {"name": "UPPER"}}', "application/json", 422),
        (b'{"metadata": {"generateName": ["x"]}}', "application/json", 400),
        (b'{"metadata": {"name": 5}}', "application/json", 400),
        (b"a: &a [x]\nb: *c", "application/yaml", 400),
        (b"a: 1\n---\nb: 2", "application/yaml", 400),
        (b"k8s\x00\xff", "application/vnd.kubernetes.protobuf", 400),
        (b"{}", "text/html", 415),
        (b"x" * (3 * 2**20 + 1), "application/json", 413),
    ],
)
async def test_a_body_that_cannot_be_stored_is_refused(body: bytes, kind: str, code: int) -> None:
    async with serving() as web:
        found = await web.ask("POST", CONFIGS, data=io.BytesIO(body), headers={"Content-Type": kind})
        assert found[0] == code, found[1]["message"]


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{", "merge-patch+json", 400),
        (b"[]", "merge-patch+json", 400),
        (b"{}", "json-patch+json", 400),
        (b'[{"op": "replace", "path": "/spec/none/deep", "value": 1}]', "json-patch+json", 422),
        (b'[{"op": "test", "path": "/spec/replicas", "value": 7}]', "json-patch+json", 422),
        (b'{"metadata": {"name": "other"}}', "merge-patch+json", 400),
        (b'{"metadata": null}', "merge-patch+json", None),
        (b'{"metadata": {"resourceVersion": "1"}}', "merge-patch+json", 409),
        (b'{"metadata": {"uid": "x"}}', "merge-patch+json", 409),
        (b'{"spec": {"replicas": -1}}', "merge-patch+json", 422),
        (b'{"kind": "Model"}', "merge-patch+json", 422),
        (b"{}", "apply-patch+yaml", 415),
        (b"{}", "strategic-merge-patch+json", 415),
    ],
)
async def test_a_patch_that_does_not_fit_is_refused(body: bytes, kind: str, code: int | None) -> None:
    async with serving() as web:
        await web.ask("POST", f"{OURS}/modelservices", json=service("iris"))
        found = await web.ask(
            "PATCH", f"{OURS}/modelservices/iris", data=body, headers={"Content-Type": f"application/{kind}"}
        )
        assert found[0] == code if code else found[0] < 500, found[1].get("message")
        _, after = await web.ask("GET", f"{OURS}/modelservices/iris")
        assert after["metadata"]["name"] == "iris"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
            st.sampled_from(["", "/api/v1", CONFIGS, f"{OURS}/modelservices", "/openapi/v3", *ACCESS]),
            st.text(max_size=12),
            st.dictionaries(
                st.sampled_from(["watch", "limit", "continue", "labelSelector", "fieldSelector", "dryRun", "x"]),
                st.text(max_size=8),
                max_size=2,
            ),
            st.binary(max_size=40) | st.sampled_from([b"{}", b'{"metadata":{"name":"x"}}', *BODIES]),
            st.sampled_from(["application/json", "application/merge-patch+json", "application/json-patch+json"]),
        ),
        max_size=20,
    )
)
async def test_whatever_is_sent_there_is_never_an_internal_error(requests: list[tuple[Any, ...]]) -> None:
    async with serving() as web:
        for method, start, rest, query, body, kind in requests:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
            path = f"{web.url}{start}/{rest}" if rest else f"{web.url}{start}"
            query = {**query, "timeoutSeconds": "1"} if query.get("watch") else query
            async with web.session.request(method, path, params=query, data=body, headers=headers) as answer:
                assert answer.status < 500, (method, path, query, body)


async def test_pages_continue_one_version_of_the_list() -> None:
    async with serving() as web:
        for name in "acegi":
            await web.config(name)
        _, first = await web.ask("GET", f"{CONFIGS}?limit=2")
        await web.config("d")
        _, second = await web.ask("GET", f"{CONFIGS}?limit=2&continue={first['metadata']['continue']}")
        await web.ask("DELETE", f"{CONFIGS}/i")
        _, third = await web.ask("GET", f"{CONFIGS}?limit=2&continue={second['metadata']['continue']}")
        pages = (first, second, third)
        assert [[each["metadata"]["name"] for each in page["items"]] for page in pages] == [
            ["a", "c"],
            ["e", "g"],
            ["i"],
        ]
        assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
        assert "continue" not in third["metadata"]
        await web.store.compact(SystemClock().now() + 1, keep=0, seconds=0)
        code, gone = await web.ask("GET", f"{CONFIGS}?limit=2&continue={first['metadata']['continue']}")
        assert (code, gone["reason"]) == (410, "Expired")


async def test_selectors_and_limits_go_together() -> None:
    async with serving() as web:
        for number in range(7):
            await web.config(f"c{number}", {"odd": str(number % 2)})
        found, token = [], ""
        while True:
            query = f"{CONFIGS}?limit=2&labelSelector=odd%3D1&continue={token}"
            _, page = await web.ask("GET", query)
            found += [each["metadata"]["name"] for each in page["items"]]
            token = page["metadata"].get("continue", "")
            if not token:
                break
        assert found == ["c1", "c3", "c5"]
        _, one = await web.ask("GET", f"{CONFIGS}?fieldSelector=metadata.name%3Dc2")
        assert [each["metadata"]["name"] for each in one["items"]] == ["c2"]


async def test_unknown_fields_are_refused_reported_or_dropped() -> None:
    async with serving() as web:
        body = service("iris", replica=3)
        code, found = await web.ask("POST", f"{OURS}/modelservices?fieldValidation=Strict", json=body)
        assert (code, 'unknown field "spec.replica"' in found["message"]) == (400, True)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with web.session.post(f"{web.url}{OURS}/modelservices", json=body, headers=headers) as answer:
            assert answer.status == 201
            assert answer.headers["Warning"] == '299 - "unknown field \\"spec.replica\\""'
            assert "replica" not in (await answer.json())["spec"]
        async with web.session.post(
            f"{web.url}{OURS}/modelservices?fieldValidation=Ignore", json=service("b", replica=3), headers=headers
        ) as answer:
            assert (answer.status, "Warning" in answer.headers) == (201, False)


async def test_all_violated_rules_are_named_at_once() -> None:
    async with serving() as web:
        body = service("iris", model={}, replicas=-1)
        code, found = await web.ask("POST", f"{OURS}/modelservices", json=body)
        assert code == 422
        assert {"spec.replicas", "spec.model"} <= {each["field"] for each in found["details"]["causes"]}


async def test_the_scale_of_a_service_can_be_read_and_set() -> None:
    async with serving() as web:
        await web.ask("POST", f"{OURS}/modelservices", json=service("iris", replicas=2))
        _, scale = await web.ask("GET", f"{OURS}/modelservices/iris/scale")
        assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 2})
        code, scale = await web.ask("PUT", f"{OURS}/modelservices/iris/scale", json={**scale, "spec": {"replicas": 3}})
        assert (code, scale["spec"]["replicas"]) == (200, 3)
        stale = {**scale, "metadata": {**scale["metadata"], "resourceVersion": "1"}}
        assert (await web.ask("PUT", f"{OURS}/modelservices/iris/scale", json=stale))[0] == 409
        assert (await web.ask("PUT", f"{OURS}/modelservices/iris/scale", json={"spec": {"replicas": -1}}))[0] == 422
        _, whole = await web.ask("GET", f"{OURS}/modelservices/iris")
        assert (whole["spec"]["replicas"], whole["metadata"]["generation"]) == (3, 2)


async def test_a_status_is_written_apart() -> None:
    async with serving() as web:
        _, made = await web.ask("POST", f"{OURS}/modelservices", json={**service("iris"), "status": {"replicas": 9}})
        assert "status" not in made
        body = {**made, "status": {"replicas": 1}, "spec": {"model": {"uri": "other"}}}
        code, found = await web.ask("PUT", f"{OURS}/modelservices/iris/status", json=body)
        assert (code, found["status"]["replicas"], found["spec"]) == (200, 1, made["spec"])
        assert (await web.ask("PUT", f"{OURS}/modelservices/iris/status", json=body))[0] == 409


async def test_a_collection_is_deleted_as_far_as_selected() -> None:
    async with serving() as web:
        await web.config("a", {"go": "yes"})
        await web.config("b")
        code, found = await web.ask("DELETE", f"{CONFIGS}?labelSelector=go%3Dyes")
        assert (code, [each["metadata"]["name"] for each in found["items"]]) == (200, ["a"])
        _, left = await web.ask("GET", CONFIGS)
        assert [each["metadata"]["name"] for each in left["items"]] == ["b"]


async def test_a_watch_follows_and_ends_in_time() -> None:
    async with serving() as web:
        made = await web.config("a")
        version = made["metadata"]["resourceVersion"]
        query = {"resourceVersion": version, "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
        assert [line["type"] async for line in web.lines(CONFIGS, **query)] == ["BOOKMARK"]
        async for line in web.lines(CONFIGS):
            assert (line["type"], line["object"]) == ("ADDED", made)
            break


async def test_many_writers_of_one_object_lose_no_update() -> None:
    async with serving() as web:
        await web.ask("POST", f"{OURS}/modelservices", json=service("iris", replicas=0))
        async with asyncio.TaskGroup() as tasks:
            for number in range(40):
                patch = {"metadata": {"labels": {f"l{number}": "x"}}}
                headers = {"Content-Type": "application/merge-patch+json"}
                tasks.create_task(web.ask("PATCH", f"{OURS}/modelservices/iris", json=patch, headers=headers))
        _, found = await web.ask("GET", f"{OURS}/modelservices/iris")
        assert len(found["metadata"]["labels"]) == 40
