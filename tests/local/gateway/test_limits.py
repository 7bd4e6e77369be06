"""How often callers are let through, and what they are told then."""

import asyncio
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from access_testing import CALLER, HOLDERS, SUBJECTS, Holder, headers, known
from modelyard.control.ir.access import ANONYMOUS, Access, Caller, Claim, RateLimit, Subject
from modelyard.control.ir.admission import is_meant
from modelyard.control.ir.platform import Platform
from modelyard.testing.gateway_suite import IRIS, Bearer, acknowledged, only, route

from .conftest import EnvoyRig, Lasting, bearing, becomes, serve

USERS = (Subject(issuer="corp", path=("sub",)), Subject(issuer="other", path=("person", "name")))
TEAM = (
    Caller(issuer="corp", claims=(Claim(path=("groups",), value="team", listed=True),)),
    Caller(issuer="other", claims=(Claim(path=("member",), value=True),)),
)


def each(requests: int, by: Any, seconds: int = 3600, **fields: Any) -> RateLimit:
    return RateLimit(requests=requests, seconds=seconds, by=by, **fields)


async def limited(rig: EnvoyRig, *limits: RateLimit, access: Access | None = None) -> None:
    """A route with these limits, which everybody may call, once that is in force."""
    rig.gateway.configure(Platform(issuers=rig.issuers, authentication="none"))
    given = access or Access(authentication="none")
    callers, authentication = given.callers, given.authentication
    wanted = route(IRIS, "a", access=Access(authentication=authentication, callers=callers, limits=limits))
    probe = route(IRIS, "a", access=only("ana"))
    for goal in (probe, wanted):
        await rig.gateway.publish((goal,), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, goal)
        if goal == probe:  # which is not counted
            await becomes(lambda: rig.ask("iris", Bearer("corp", {"sub": "ana"})), lambda answer: answer[0] == 200)


async def passed(rig: EnvoyRig, bearer: Bearer | None = None, tries: int = 4) -> int:
    """How many of some requests are let through, all before the first that is not."""
    found = [(await rig.ask("iris.default", bearer))[0] for _ in range(tries)]
    assert found == sorted(found), found
    assert set(found) <= {200, 429}
    return found.count(200)


def corp(**claims: Any) -> Bearer:
    return Bearer("corp", claims)


async def test_all_requests_of_a_service_are_counted_together(rig: EnvoyRig) -> None:
    await limited(rig, each(3, "service"))
    assert await passed(rig, corp(sub="ana"), 2) == 2
    assert await passed(rig, None, 2) == 1
    assert await passed(rig, corp(sub="bob"), 1) == 0


async def test_each_user_is_counted_apart_and_all_others_together(rig: EnvoyRig) -> None:
    await limited(rig, each(2, "user", users=USERS))
    for name in ("ana", "bob"):
        assert await passed(rig, corp(sub=name)) == 2
        assert await passed(rig, Bearer("other", {"sub": "x", "person": {"name": name}})) == 2
    assert await passed(rig, None) == 2
    # None of these can be told apart, and none gets more for that.
    for nobody in (
        corp(sub=None),
        corp(sub=""),
        Bearer("other", {"person": "ana"}),
        Bearer("other", {"person": ["name"]}),
        Bearer("other", {"person": True}),
        Bearer("other", {"person": 1.5}),
        Bearer("other", {"person": {"name": 7}}),
        Bearer("other", {"person": {"name": ["ana"]}}),
        Bearer("other", {"person": {"name": ""}}),
        Bearer("other", {"person": {}}),
    ):
        assert await passed(rig, nobody, 2) == 0, nobody


async def test_the_members_of_a_group_share_one_count(rig: EnvoyRig) -> None:
    await limited(rig, each(3, "group", callers=TEAM))
    assert await passed(rig, corp(sub="ana", groups=["a", "team"]), 1) == 1
    assert await passed(rig, corp(sub="bob", groups="team"), 1) == 1
    assert await passed(rig, Bearer("other", {"member": True}), 1) == 1
    for member in (corp(groups=["team"]), corp(groups=["team", 7, None, {"x": 1}]), Bearer("other", {"member": True})):
        assert await passed(rig, member, 1) == 0, member
    for stranger in (
        None,
        corp(groups=["teams"]),
        corp(groups=7),
        corp(groups={"team": True}),
        corp(),
        Bearer("other", {"groups": ["team"]}),
        Bearer("other", {"member": "true"}),
        Bearer("other", {"member": [True]}),
    ):
        assert await passed(rig, stranger) == 4, stranger


async def test_callers_without_a_token_can_be_a_group(rig: EnvoyRig) -> None:
    await limited(rig, each(1, "group", callers=(ANONYMOUS,)))
    assert await passed(rig) == 1
    assert await passed(rig, corp()) == 4
    status, _, _ = await rig.request("POST", "/v2/models/iris.default/infer", data=b"{}", headers=bearing("no token"))
    assert status == 429


async def test_all_limits_of_a_service_hold_together(rig: EnvoyRig) -> None:
    await limited(rig, each(5, "service"), each(3, "user", users=USERS), each(2, "group", callers=TEAM))
    assert await passed(rig, corp(sub="ana", groups=["team"])) == 2
    assert await passed(rig, corp(sub="ana")) == 1
    assert await passed(rig, corp(sub="bob")) == 2, "what was refused does not count for others"
    assert await passed(rig, corp(sub="cy")) == 0


async def test_several_limits_of_one_kind_hold_together(rig: EnvoyRig) -> None:
    await limited(rig, each(5, "service", 60), each(3, "service", 86400), each(4, "user", 7, users=USERS))
    assert await passed(rig, corp(sub="ana")) == 3


async def test_a_refused_caller_is_told_when_to_try_again(rig: EnvoyRig) -> None:
    await limited(rig, each(2, "service", 60))
    _, _, headers = await rig.request("GET", "/v2/models/iris/ready")
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("2", "1")
    await rig.request("GET", "/v2/models/iris/ready")
    status, body, headers = await rig.request("GET", "/v2/models/iris/ready")
    assert (status, headers["x-ratelimit-remaining"], headers["retry-after"]) == (429, "0", "30")
    assert 0 < int(headers["x-ratelimit-reset"]) <= 30
    assert "asked more often than an AccessPolicy allows" in body["error"]
    assert "kubectl get accesspolicies" in body["error"]


async def test_requests_come_back_evenly(rig: EnvoyRig) -> None:
    await limited(rig, each(20, "service", 1))
    assert await passed(rig, None, 20) == 20
    async with asyncio.timeout(5):
        while (await rig.ask("iris.default"))[0] != 200:  # noqa: ASYNC110  in 50 ms
            await asyncio.sleep(0.005)


async def test_who_may_not_call_uses_up_nothing(rig: EnvoyRig) -> None:
    await limited(rig, each(1, "service"), access=only("ana"))
    for _ in range(3):
        assert (await rig.ask("iris.default", corp(sub="bob")))[0] == 403
        assert (await rig.ask("iris.default"))[0] == 401
    assert await passed(rig, corp(sub="ana")) == 1


async def test_grpc_calls_count_like_others_and_get_resource_exhausted(rig: EnvoyRig) -> None:
    await limited(rig, each(1, "service"))
    assert await passed(rig, None, 1) == 1
    message = service_pb2.ModelInferRequest(model_name="iris.default").SerializeToString()
    async with grpc.aio.insecure_channel(rig.gateway.url.removeprefix("http://")) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", bytes, bytes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(message, timeout=20)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "asked more often" in (caught.value.details() or "")


async def test_probes_of_the_server_are_never_limited(rig: EnvoyRig) -> None:
    rig.gateway.configure(Platform(authentication="none"))
    limits = (each(1, "service"),)
    owner = IRIS.__class__(kind="ModelService", namespace="default", name="live")
    wanted = route(owner, "a", access=Access(authentication="none", limits=limits))
    await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, wanted)
    await becomes(lambda: rig.ask("live"), lambda answer: answer[0] == 429)
    for _ in range(3):
        assert (await rig.request("GET", "/v2/health/live"))[0] == 200


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    groups=st.lists(st.lists(CALLER | st.just(ANONYMOUS), min_size=1, max_size=3).map(tuple), min_size=3, max_size=5),
    users=st.lists(SUBJECTS, min_size=2, max_size=3),
    holders=st.lists(HOLDERS, min_size=4, max_size=8),
)
def test_every_member_of_a_group_is_counted_nobody_else_and_every_user(
    lasting: Lasting,
    groups: list[tuple[Caller, ...]],
    users: list[tuple[Subject, ...]],
    holders: list[Holder],
) -> None:
    lasting.run(_compare(lasting.rig, groups, users, holders))


async def _compare(
    rig: EnvoyRig, groups: list[tuple[Caller, ...]], users: list[tuple[Subject, ...]], holders: list[Holder]
) -> None:
    limits = [each(1000, "group", callers=callers) for callers in groups]
    limits += [each(1000, "user", users=subjects) for subjects in users]
    names = await serve(rig, [Access(authentication="none", limits=(limit,)) for limit in limits])
    for name, limit in zip(names, limits, strict=True):
        for holder in holders:
            _, _, answered = await rig.request("GET", f"/v2/models/{name}/ready", headers=headers(holder))
            counted = limit.by == "user" or any(is_meant(caller, *known(holder)) for caller in limit.callers)
            assert (answered["x-ratelimit-limit"] == "1000") == counted, (limit, holder)
