"""Grants that change while services come, switch and go: what is in force is always what is written down."""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_testing import World, digest_of, virtual
from modelyard.api import load
from modelyard.api.access import AccessPolicy
from modelyard.control.engine.grants import Grants
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.ir.platform import ACCOUNTS, OWN, Issuer, Platform
from modelyard.control.ir.values import Key
from modelyard.control.kube.resources import ACCESSPOLICIES, ROLEBINDINGS, ROLES
from modelyard.control.plan.grants import AccessTable, Written, reach
from modelyard.control.plan.platform import Standing
from modelyard.control.plan.rbac import Binding, Role
from modelyard.control.plan.tightening import Tightening

Object = dict[str, Any]
READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING
ISSUERS = (
    Issuer(name=OWN, url="modelyard:users", audiences=("modelyard",)),
    Issuer(name=ACCOUNTS, url="modelyard", audiences=("modelyard",)),
)
NAMES, USERS = ("digits", "iris"), ("ana", "bob")
PLATFORM = Platform(issuers=ISSUERS)
STANDINGS = [
    Standing(platform=PLATFORM, authentication="required", floor="required"),
    Standing(platform=PLATFORM, authentication="optional", floor="none"),
    Standing(platform=PLATFORM, authentication="required", floor="none"),
]
names, users, index = st.sampled_from(NAMES), st.sampled_from(USERS), st.integers(0, 5)
levels = st.sampled_from(["none", "optional", "required", None])

EVENTS = st.one_of(
    st.tuples(st.just("serve"), names, st.sampled_from(["a.onnx", "b.onnx"])),
    st.tuples(st.just("serve"), names, st.sampled_from(["a.onnx", "b.onnx"])),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("grant"), users, names),
    st.tuples(st.just("grant"), users, names),
    st.tuples(st.just("revoke"), users),
    st.tuples(st.just("policy"), users, st.none() | names, levels, st.booleans()),
    st.tuples(st.just("unpolicy"), users),
    st.tuples(st.just("stand"), st.sampled_from(STANDINGS)),
    st.tuples(st.just("go on"), index),
    st.tuples(st.just("go on"), index),
    st.tuples(st.just("acknowledge")),
    st.tuples(st.just("restart"), st.booleans()),
)
PAUSES = st.sampled_from([0.0, 0.002, 0.02, 0.3, 5.0])


def role(user: str, name: str) -> list[Object]:
    resources = {"apiGroups": ["modelyard.dev"], "resources": ["modelservices"], "resourceNames": [name]}
    return [{"verbs": ["predict"], **resources}]


class Story:
    def __init__(self, stack: AsyncExitStack) -> None:
        self.world = World(automatic_gateway=False)
        self.world.standing = STANDINGS[0]
        self.wanted: dict[str, str] = {}
        self._stack = stack

    async def start(self, *, fresh: bool = False) -> None:
        await self._stack.aclose()
        await self._stack.enter_async_context(self.world.running(fresh=fresh))

    async def happens(self, kind: str, *arguments: Any) -> None:
        events: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
            "serve": self._serve,
            "delete": self._delete,
            "grant": self._grant,
            "revoke": self._revoke,
            "policy": self._policy,
            "unpolicy": self._unpolicy,
            "stand": self._stand,
            "go on": self._go_on,
            "acknowledge": self._acknowledge,
            "restart": self._restart,
        }
        await events[kind](*arguments)

    async def _serve(self, name: str, uri: str) -> None:
        await self.world.serve(name, uri)
        self.wanted[name] = uri

    async def _delete(self, name: str) -> None:
        if self.wanted.pop(name, None):
            await self.world.delete("ModelService", name)

    async def _grant(self, user: str, name: str) -> None:
        self.world.api.place(ROLES, user, rules=role(user, name))
        self.world.api.place(
            ROLEBINDINGS, user, roleRef={"kind": "Role", "name": user}, subjects=[{"kind": "User", "name": user}]
        )

    async def _revoke(self, user: str) -> None:
        if self.world.api.find(ROLEBINDINGS, user):
            self.world.api.remove((ROLEBINDINGS.plural, "default", user))

    async def _policy(self, name: str, service: str | None, level: str | None, only_accounts: bool) -> None:
        services = [service] if service else None
        spec = {"services": services, "authentication": level, "issuers": [ACCOUNTS] if only_accounts else None}
        await self._unpolicy(name)
        await self.world.apply("AccessPolicy", name, {key: value for key, value in spec.items() if value})

    async def _unpolicy(self, name: str) -> None:
        if self.world.api.find(ACCESSPOLICIES, name):
            await self.world.delete("AccessPolicy", name)

    async def _stand(self, standing: Standing) -> None:
        self.world.standing = standing
        assert self.world.engine is not None
        self.world.engine.stand(standing)

    async def _go_on(self, number: int) -> None:
        for task in self.world.tasks():
            self.world.finish(task)
        if found := self.world.replicas(STARTING, DRAINING):
            replica = found[number % len(found)]
            (self.world.driver.make_ready if replica.state is STARTING else self.world.driver.drained)(replica.name)

    async def _acknowledge(self) -> None:
        self.world.gateway.settle()

    async def _restart(self, fresh: bool) -> None:
        await self.start(fresh=fresh)

    async def ends_well(self) -> None:
        for _ in range(6):
            await self.world.prepares()
            await self.world.loads()
            self.world.gateway.settle()
            await self.world.drains()

    def check(self) -> None:
        """At rest."""
        world, table = self.world, AccessTable(self._written())
        for name in NAMES:
            route = world.gateway.observe(Key(kind="ModelService", namespace="default", name=name)).acknowledged
            if name not in self.wanted:
                assert route is None
                continue
            assert route is not None
            assert route.access == table.access("default", name)
            assert world.ready("ModelService", name)[:2] == ("True", "Serving")
            units = {each.unit.name: each.unit for each in world.driver.observe().units}
            assert [units[each.unit].work.serve.models[0].digest for each in route.backends] == [  # type: ignore[union-attr]
                digest_of(self.wanted[name])
            ]
        assert len(world.driver.observe().units) == len(self.wanted)

    def _written(self) -> Written:
        world = self.world
        assert world.standing is not None
        policies = [load.decode(each) for each in world.api.all(ACCESSPOLICIES)]
        roles = [Role.of(each) for each in world.api.all(ROLES)]
        return Written(
            standing=world.standing,
            roles={each.key: reach(each.rules) for each in roles},
            bindings=[Binding.of(each) for each in world.api.all(ROLEBINDINGS)],
            accounts={},
            policies={"default": [Tightening.of(each) for each in policies if isinstance(each, AccessPolicy)]},
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(EVENTS, PAUSES), max_size=25))
@virtual
async def test_whatever_happens_what_is_written_down_comes_into_force(
    history: list[tuple[tuple[Any, ...], float]],
) -> None:
    async with AsyncExitStack() as stack:
        story = Story(stack)
        await story.start()
        for event, pause in history:
            await story.happens(*event)
            await story.world.passes(pause)
        await story.ends_well()
        story.check()


# Only what concerns predictions is turned round again: nothing that does may be missed.

SUBJECTS = [
    {"kind": "User", "name": "ana"},
    {"kind": "Group", "name": "system:serviceaccounts:default"},
    {"kind": "ServiceAccount", "name": "bot", "namespace": "default"},
    {"kind": "Group", "name": "system:serviceaccounts:other"},
]
PLACES = st.sampled_from([("default", "one"), ("default", "two"), ("", "one")])
RULES = st.sampled_from([None, [], role("", "digits"), role("", "iris"), [{**role("", "")[0], "resourceNames": []}]])
KEYS = [Key(kind="ModelService", namespace="default", name=name) for name in NAMES]
NAMED = {"metadata": {"namespace": "default", "name": "one"}}


def binding(place: tuple[str, str], kind: str, subject: Object) -> Object:
    return {
        "metadata": {"namespace": place[0], "name": place[1]},
        "roleRef": {"kind": kind if place[0] else "ClusterRole", "name": "one"},
        "subjects": [subject],
    }


CHANGES: st.SearchStrategy[Callable[[Grants], None]] = st.one_of(
    st.builds(
        lambda place, rules: (
            lambda grants: grants.put_role(
                place,
                None if rules is None else {"metadata": {"namespace": place[0], "name": place[1]}, "rules": rules},
            )
        ),
        PLACES,
        RULES,
    ),
    st.builds(
        lambda place, kind, subject: (
            lambda grants: grants.put_binding(place, binding(place, kind, subject) if subject else None)
        ),
        PLACES,
        st.sampled_from(["Role", "ClusterRole"]),
        st.none() | st.sampled_from(SUBJECTS),
    ),
    st.builds(
        lambda space, uid: (
            lambda grants: grants.put_account(
                (space, "bot"),
                {"metadata": {"namespace": space, "name": "bot", "uid": f"{space}-{uid}"}} if uid else None,
            )
        ),
        st.sampled_from(["default", "other"]),
        st.integers(0, 2),
    ),
    st.builds(lambda standing: lambda grants: grants.stand(standing), st.sampled_from(STANDINGS)),
)


def base() -> Grants:
    grants = Grants()
    grants.stand(STANDINGS[0])
    grants.put_role(("default", "one"), {**NAMED, "rules": role("", "iris")})
    for name, subject in zip(("one", "two", "three"), SUBJECTS, strict=False):
        grants.put_binding(("default", name), binding(("default", name), "Role", subject))
    return grants


@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=30))
def test_what_is_taken_up_piece_by_piece_is_what_is_written_down(
    changes: list[tuple[Callable[[Grants], None], bool]],
) -> None:
    followed = base()
    followed.renew()
    for count, (change, looked_at) in enumerate(changes, 1):
        change(followed)
        if not looked_at:
            continue
        before = [followed.access(each) for each in KEYS]
        concerned = followed.renew() if followed.are_stale else set()
        fresh = base()
        for earlier, _ in changes[:count]:
            earlier(fresh)
        fresh.renew()
        assert [followed.access(each) for each in KEYS] == [fresh.access(each) for each in KEYS]
        assert followed.platform == fresh.platform
        for key, access in zip(KEYS, before, strict=True):
            is_told = concerned is None or concerned & {(key.namespace, key.name), (key.namespace, "")}
            assert is_told or followed.access(key) == access
