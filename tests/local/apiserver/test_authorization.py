"""Authorization of every request over a real socket."""

import asyncio
import base64
import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apihttp_testing import CONFIGS, OURS, TOKEN, Web, service, serving

Object = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUTH = "/apis/authorization.k8s.io/v1"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
ANA = "system:serviceaccount:default:ana"


async def token(web: Web, name: str = "ana", **spec: Any) -> str:
    await web.ask("POST", ACCOUNTS, json={"metadata": {"name": name}})
    code, found = await web.ask("POST", f"{ACCOUNTS}/{name}/token", json={"spec": spec})
    assert code == 201, found
    return str(found["status"]["token"])


async def grant(web: Web, rules: list[Object], *, name: str = "r", cluster: bool = False, user: str = ANA) -> None:
    """The rules to one user, by a role and binding that are replaced where they exist."""
    place, kind = (RBAC, "Cluster") if cluster else (f"{RBAC}/namespaces/default", "")
    plural = kind.lower()
    reference = {"kind": f"{kind}Role", "name": name}
    body = {"metadata": {"name": name}, "rules": rules}
    code, _ = await web.ask("POST", f"{place}/{plural}roles", json=body)
    if code == 409:
        code, _ = await web.ask("PUT", f"{place}/{plural}roles/{name}", json=body)
    assert code in (200, 201)
    body = {"metadata": {"name": name}, "roleRef": reference, "subjects": [{"kind": "User", "name": user}]}
    assert (await web.ask("POST", f"{place}/{plural}rolebindings", json=body))[0] in (201, 409)


def bearing(value: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}", **more}


def rule(verbs: list[str], resources: list[str], group: str = "modelyard.dev", **more: Any) -> Object:
    return {"verbs": verbs, "apiGroups": [group], "resources": resources, **more}


REQUESTS = [
    ("GET", f"{OURS}/models", "list", "models"),
    ("GET", f"{OURS}/models?watch=1&timeoutSeconds=1", "watch", "models"),
    ("GET", f"{OURS}/models/m", "get", "models"),
    ("HEAD", f"{OURS}/models/m", "get", "models"),
    ("POST", f"{OURS}/models", "create", "models"),
    ("PUT", f"{OURS}/models/m", "update", "models"),
    ("PATCH", f"{OURS}/models/m", "patch", "models"),
    ("DELETE", f"{OURS}/models/m", "delete", "models"),
    ("DELETE", f"{OURS}/models", "deletecollection", "models"),
    ("GET", f"{OURS}/models/m/status", "get", "models/status"),
    ("PATCH", f"{OURS}/models/m/status", "patch", "models/status"),
    ("GET", f"{OURS}/modelservices/m/scale", "get", "modelservices/scale"),
]


@pytest.mark.parametrize(("method", "path", "verb", "resource"), REQUESTS)
async def test_each_request_needs_its_own_verb_and_resource(method: str, path: str, verb: str, resource: str) -> None:
    async with serving() as web:
        headers = bearing(await token(web))

        async def asked() -> tuple[int, str]:
            async with web.session.request(method, web.url + path, headers=headers, json={}) as answer:
                return answer.status, await answer.text()

        everything_else = sorted({each for _, _, each, _ in REQUESTS} - {verb})
        others = sorted({each for _, _, _, each in REQUESTS} - {resource})
        await grant(web, [rule(everything_else, [resource]), rule([verb], others)])
        code, said = await asked()
        assert code == 403
        if method != "HEAD":
            message = (
                f'User "{ANA}" cannot {verb} resource "{resource}" in API group "modelyard.dev" in the namespace '
                '"default"'
            )
            assert message in json.loads(said)["message"]
        await grant(web, [rule([verb], [resource])])
        assert (await asked())[0] != 403


async def test_a_new_account_may_look_around_and_nothing_else() -> None:
    async with serving() as web:
        headers = bearing(await token(web))
        for path in ("/api", "/apis", "/api/v1", "/openapi/v3", "/openapi/v3/api/v1", "/version"):
            async with web.session.get(web.url + path, headers=headers) as answer:
                assert answer.status == 200
        for path in ("/", "/metrics", CONFIGS, "/api/v1/namespaces", "/api/v1/namespaces/default", "/api/v1/secrets"):
            code, found = await web.ask("GET", path, headers=headers)
            assert (code, found["reason"]) == (403, "Forbidden")
        _, found = await web.ask("GET", "/metrics", headers=headers)
        assert found["message"] == f'forbidden: User "{ANA}" cannot get path "/metrics"'
        _, found = await web.ask("GET", "/api/v1/secrets", headers=headers)
        assert found["message"].endswith('cannot list resource "secrets" in API group "" at the cluster scope')


async def test_a_name_that_is_selected_counts_as_a_name() -> None:
    async with serving() as web:
        headers = bearing(await token(web))
        await grant(web, [rule(["list", "watch"], ["configmaps"], "", resourceNames=["a"])])
        for query, code in (
            ("", 403),
            ("?fieldSelector=metadata.name%3Da", 200),
            ("?fieldSelector=metadata.name%3Db", 403),
            ("?fieldSelector=metadata.name!%3Da", 403),
            ("?fieldSelector=metadata.namespace!%3D%5C%2Cmetadata.name%3Da", 403),
        ):
            assert (await web.ask("GET", CONFIGS + query, headers=headers))[0] == code, query


async def test_a_role_of_a_namespace_speaks_of_the_namespace_itself() -> None:
    async with serving() as web:
        headers = bearing(await token(web))
        await grant(web, [rule(["get"], ["namespaces"], "")])
        assert (await web.ask("GET", "/api/v1/namespaces/default", headers=headers))[0] == 200
        assert (await web.ask("GET", "/api/v1/namespaces/modelyard-system", headers=headers))[0] == 403


@pytest.mark.parametrize("end", ["role", "account", "impersonation"])
async def test_a_watch_ends_with_the_right_to_it(end: str) -> None:
    async with serving() as web:
        headers = bearing(await token(web))
        if end == "impersonation":
            await grant(web, [rule(["impersonate"], ["users"], "")], name="speak", cluster=True)
            await grant(web, [rule(["watch"], ["configmaps"], "")], user="bob")
            headers |= {"Impersonate-User": "bob"}
        else:
            await grant(web, [rule(["watch"], ["configmaps"], "")])
        async with web.session.get(f"{web.url}{CONFIGS}?watch=1", headers=headers) as answer:
            await web.config("a")
            assert b'"a"' in await answer.content.readline()
            if end == "role":
                await web.ask("DELETE", f"{RBAC}/namespaces/default/rolebindings/r")
            elif end == "account":
                await web.ask("DELETE", f"{ACCOUNTS}/ana")
            else:
                await web.ask("DELETE", f"{RBAC}/clusterrolebindings/speak")
            await web.config("secret-name")
            async with asyncio.timeout(5):
                assert await answer.content.read() == b""


async def test_only_whole_tokens_of_this_server_are_taken() -> None:
    async with serving() as web, serving() as other:
        good = await token(web)
        head, payload, signature = good.split(".")

        def part(value: Object) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        bad = [
            await token(other),
            await token(web, audiences=["elsewhere"]),
            f"{part({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
            f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{payload}.{signature}",
            f"{head}.{part({**claims, 'sub': 'owner'})}.{signature}",
            f"{head}.{payload}.{signature[:-4]}AAAA",
            f"{head}.{payload}.{'A' * 86}",
            f"{head}.{payload}",
            f"{head}.{payload}.",
            f"{good}.x",
            "..",
            "x" * 9000,
        ]
        for each in bad:
            code, found = await web.ask("GET", "/apis", headers=bearing(each))
            assert (code, found["message"]) == (401, "Unauthorized"), each
        assert (await web.ask("GET", "/apis", headers=bearing(good)))[0] == 200


async def test_nothing_of_a_token_or_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving() as web:
            given = await token(web)
            for value in (given, f"{given}x", "wr0ng"):
                await web.ask("GET", "/api/v1/secrets", headers=bearing(value))
    assert given not in caplog.text
    assert given.split(".")[2] not in caplog.text
    assert "wr0ng" not in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Impersonate-User": "bob"}, 200),
        ({"Impersonate-User": "bob", "Impersonate-Group": "team", "Impersonate-Uid": "7"}, 200),
        ({"Impersonate-Group": "team"}, 400),
        ({"Impersonate-Uid": "7"}, 400),
        ({"Impersonate-User": ""}, 400),
        ({"Impersonate-User": "bob", "Impersonate-Extra-Scopes": "x"}, 400),
    ],
)
async def test_the_owner_may_speak_for_anybody(headers: dict[str, str], code: int) -> None:
    async with serving() as web:
        found, _ = await web.ask("GET", "/apis", headers={**bearing(TOKEN), **headers})
        assert found == code


async def test_a_name_that_is_no_text_is_nobody() -> None:
    async with serving() as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(web.url.rpartition(":")[2]))
        head = f"GET /apis HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nImpersonate-User: "
        writer.write(head.encode() + b"b\xffb\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_an_impersonated_account_has_its_groups() -> None:
    async with serving() as web:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        headers = bearing(TOKEN, **{"Impersonate-User": ANA})
        _, found = await web.ask(
            "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", json=review, headers=headers
        )
        assert found["status"]["userInfo"] == {
            "username": ANA,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        }


async def test_reviews_answer_for_others_and_say_why() -> None:
    async with serving() as web:
        await grant(web, [rule(["predict"], ["modelservices"], resourceNames=["iris"])], user="bob")
        asked = {"verb": "predict", "group": "modelyard.dev", "resource": "modelservices", "namespace": "default"}
        for name, allowed in (("iris", True), ("rain", False), ("", False)):
            spec = {"user": "bob", "resourceAttributes": {**asked, "name": name}}
            for path in (f"{AUTH}/subjectaccessreviews", f"{AUTH}/namespaces/default/localsubjectaccessreviews"):
                code, found = await web.ask("POST", path, json={"spec": spec})
                assert (code, found["status"]["allowed"]) == (201, allowed)
                if allowed:
                    expected = 'RBAC: allowed by RoleBinding "r/default" of Role "r" to User "bob"'
                    assert found["status"]["reason"] == expected


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (f"{AUTH}/subjectaccessreviews", {"spec": {"resourceAttributes": {}}}, 422),
        (f"{AUTH}/subjectaccessreviews", {"spec": {"user": "a"}}, 422),
        (f"{AUTH}/subjectaccessreviews", {}, 422),
        (f"{AUTH}/selfsubjectaccessreviews", {"spec": {"nonResourceAttributes": {"verb": "get"}}}, 422),
        (f"{AUTH}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": {"verb": 5}}}, 422),
        (f"{AUTH}/selfsubjectrulesreviews", {"spec": {}}, 400),
        (f"{AUTH}/namespaces/x/localsubjectaccessreviews", {"spec": {"user": "a", "resourceAttributes": {}}}, 422),
        (f"{AUTH}/localsubjectaccessreviews", {"spec": {"user": "a", "resourceAttributes": {}}}, 405),
        (f"{ACCOUNTS}/none/token", {}, 404),
        (f"{ACCOUNTS}/ana/token", {"spec": {"expirationSeconds": 1}}, 422),
        (f"{ACCOUNTS}/ana/token", {"spec": {"expirationSeconds": 2**40}}, 422),
        (f"{ACCOUNTS}/ana/token", {"spec": {"boundObjectRef": {"kind": "Pod"}}}, 422),
        (f"{ACCOUNTS}/ana/token", {"spec": {"audiences": [""]}}, 422),
        (f"{ACCOUNTS}/ana/token", {"kind": "Secret"}, 400),
    ],
)
async def test_questions_that_make_no_sense_are_refused(path: str, body: Object, code: int) -> None:
    async with serving() as web:
        await token(web)
        assert (await web.ask("POST", path, json=body))[0] == code


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{AUTH}/selfsubjectaccessreviews"),
        ("GET", f"{ACCOUNTS}/ana/token"),
        ("PUT", f"{ACCOUNTS}/ana/token"),
    ],
)
async def test_questions_are_only_asked(method: str, path: str) -> None:
    async with serving() as web:
        await token(web)
        assert (await web.ask(method, path))[0] == 405


VERBS = ["get", "list", "create", "delete", "predict", "*"]
RULES = st.lists(
    st.builds(
        lambda verbs, resources, names: rule(verbs, resources, **({"resourceNames": names} if names else {})),
        st.lists(st.sampled_from(VERBS), min_size=1, max_size=2, unique=True),
        st.lists(st.sampled_from(["models", "modelservices", "*", "*/status"]), min_size=1, max_size=2, unique=True),
        st.lists(st.sampled_from(["a", "b"]), max_size=1),
    ),
    max_size=3,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(RULES)
async def test_what_a_review_answers_is_what_the_server_does(rules: list[Object]) -> None:
    async with serving() as web:
        headers = bearing(await token(web))
        await grant(web, rules)
        for plural in ("models", "modelservices"):
            for method, verb, name, below in (
                ("GET", "list", "", ""),
                ("GET", "get", "a", ""),
                ("GET", "get", "c", ""),
                ("GET", "get", "a", "status"),
                ("POST", "create", "", ""),
                ("DELETE", "delete", "b", ""),
            ):
                path = "/".join(each for each in (f"{OURS}/{plural}", name, below) if each)
                code, _ = await web.ask(method, path, headers=headers, json={})
                attributes = {"verb": verb, "group": "modelyard.dev", "resource": plural, "namespace": "default"}
                attributes |= {"name": name, "subresource": below}
                spec = {"spec": {"resourceAttributes": attributes}}
                _, found = await web.ask("POST", f"{AUTH}/selfsubjectaccessreviews", json=spec, headers=headers)
                assert (code != 403) == found["status"]["allowed"], (path, verb)


async def test_who_may_edit_makes_a_service_and_reads_it_back() -> None:
    async with serving() as web:
        headers = bearing(await token(web))
        body = {"roleRef": {"kind": "ClusterRole", "name": "edit"}, "metadata": {"name": "e"}}
        subject = {"kind": "ServiceAccount", "name": "ana"}
        code, _ = await web.ask("POST", f"{RBAC}/namespaces/default/rolebindings", json={**body, "subjects": [subject]})
        assert code == 201
        assert (await web.ask("POST", f"{OURS}/modelservices", json=service("iris"), headers=headers))[0] == 201
        assert (await web.ask("GET", f"{OURS}/modelservices/iris", headers=headers))[0] == 200
        code, _ = await web.ask("PUT", f"{OURS}/modelservices/iris/status", json={}, headers=headers)
        assert code == 403
