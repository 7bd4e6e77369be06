"""Who may call which service: for every token the answer of the roles, as AccessPolicies tighten it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.access import Authentication, RateLimit
from modelyard.control.ir.access import ANONYMOUS, OPEN, Access, Caller, Claim, Subject
from modelyard.control.ir.admission import admits
from modelyard.control.ir.platform import ACCOUNTS, OWN, Issuer, Platform
from modelyard.control.plan import rbac
from modelyard.control.plan.grants import NOWHERE, AccessTable, Reach, Written, reach
from modelyard.control.plan.platform import Standing
from modelyard.control.plan.rbac import Ask, Binding, Policy, Role, RoleKey, Rule, User
from modelyard.control.plan.rbac import Subject as Named
from modelyard.control.plan.tightening import Tightening

GROUP = "modelyard.dev"
OWN_ISSUER = Issuer(name=OWN, url="modelyard:users", audiences=("modelyard",))
ACCOUNTS_ISSUER = Issuer(name=ACCOUNTS, url="modelyard", audiences=("modelyard",))
CORP = Issuer(name="corp", url="https://corp", audiences=("m",), prefix="corp:")
LAB = Issuer(
    name="lab",
    url="https://lab",
    audiences=("m",),
    username=("profile", "email"),
    groups=("profile", "teams"),
    verified=("profile", "email_verified"),
    prefix="lab-",
)
ISSUERS = (OWN_ISSUER, ACCOUNTS_ISSUER, CORP, LAB)
ALIVE = {"a": {"bot": "uid-1"}, "b": {"bot": "uid-2"}}
SPACES = ["a", "b"]
SERVICES = ["x", "y"]
LEVELS: list[Authentication] = ["none", "optional", "required"]


def standing(
    authentication: Authentication = "required", floor: Authentication = "none", issuers: tuple[Issuer, ...] = ISSUERS
) -> Standing:
    return Standing(platform=Platform(issuers=issuers), authentication=authentication, floor=floor)


def written(
    policy: Policy, *, at: Standing | None = None, policies: Mapping[str, list[Tightening]] | None = None
) -> Written:
    return Written(
        standing=at or standing(),
        roles={key: reach(rules) for key, rules in policy.roles.items()},
        bindings=policy.bindings.values(),
        accounts=ALIVE,
        policies=policies or {},
    )


def allowing(*subjects: Named, names: frozenset[str] = frozenset(), space: str = "a") -> Policy:
    rule = Rule(
        verbs=frozenset({"predict"}), groups=frozenset({GROUP}), resources=frozenset({"modelservices"}), names=names
    )
    role = Role(RoleKey("", "callers"), (rule,))
    return Policy.of([role], [Binding(space, "callers", role.key, subjects)])


def access_of(policy: Policy, *, at: Standing | None = None, policies: list[Tightening] | None = None) -> Access:
    return AccessTable(written(policy, at=at, policies={"a": policies or []})).access("a", "x")


# What a token means, told in the plainest way: who bears it in the words of Kubernetes; None: nobody.


Claims = Mapping[str, Any]


def bearer(issuer: str, claims: Claims) -> User | None:
    meanings = {"": stranger, OWN: person, ACCOUNTS: account, "corp": of_corp, "lab": of_lab}
    return meanings[issuer](claims)


def stranger(_: Claims) -> User:
    return User(rbac.ANONYMOUS, (rbac.UNAUTHENTICATED,))


def person(claims: Claims) -> User:
    return User(claims["sub"], (*claims["groups"], rbac.AUTHENTICATED))


def account(claims: Claims) -> User | None:
    space, name = claims["sub"].split(":")[2:]
    if ALIVE.get(space, {}).get(name) != claims["kubernetes.io"]["serviceaccount"]["uid"]:
        return None
    return User(claims["sub"], (*rbac.account_groups(space), rbac.AUTHENTICATED))


def of_corp(claims: Claims) -> User:
    groups = claims["groups"] if isinstance(claims["groups"], list) else [claims["groups"]]
    return User(f"corp:{claims['sub']}", (*(f"corp:{each}" for each in groups), rbac.AUTHENTICATED))


def of_lab(claims: Claims) -> User | None:
    profile = claims["profile"]
    if profile["email_verified"] is not True:
        return None
    return User(f"lab-{profile['email']}", (*(f"lab-{each}" for each in profile["teams"]), rbac.AUTHENTICATED))


WORDS = ["ana", "bob", "ops", "system:masters", "corp:ana", "system:authenticated", "lab-ana", "bot"]
own_names = st.sampled_from(["ana", "bob", "ops"])
tokens: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.just(("", {})),
    st.builds(
        lambda user, groups: (OWN, {"sub": user, "groups": groups}),
        own_names,
        st.lists(st.sampled_from(["ops", "ana", "system:masters"]), max_size=2),
    ),
    st.builds(
        lambda user, groups: ("corp", {"sub": user, "groups": groups}),
        st.sampled_from(WORDS),
        st.one_of(st.lists(st.sampled_from(WORDS), max_size=2), st.sampled_from(WORDS)),
    ),
    st.builds(
        lambda user, teams, verified: (
            "lab",
            {
                "profile": {"email": user, "teams": teams, "email_verified": verified},
                "sub": "ana",
                "groups": ["ops"],
                "email_verified": True,
            },
        ),
        st.sampled_from(WORDS),
        st.lists(st.sampled_from(WORDS), max_size=2),
        st.sampled_from([True, False, "true", 1]),
    ),
    st.builds(
        lambda space, name, uid: (
            ACCOUNTS,
            {
                "sub": f"system:serviceaccount:{space}:{name}",
                "kubernetes.io": {"namespace": space, "serviceaccount": {"name": name, "uid": uid}},
            },
        ),
        st.sampled_from(SPACES),
        st.just("bot"),
        st.sampled_from(["uid-1", "uid-2", "uid-old"]),
    ),
)
subjects = st.one_of(
    st.builds(Named, st.just("User"), st.sampled_from([*WORDS, "system:anonymous", "lab-bob", "other:ana", "corp:"])),
    st.builds(Named, st.just("User"), st.sampled_from(["system:serviceaccount:a:bot", "system:serviceaccount:b:gone"])),
    st.builds(
        Named,
        st.just("Group"),
        st.sampled_from([*WORDS, "corp:ops", "lab-ops", "system:unauthenticated", "system:serviceaccounts:a"]),
    ),
    st.builds(Named, st.just("ServiceAccount"), st.just("bot"), st.sampled_from(SPACES)),
)


def some(*values: str) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), max_size=2)


rules = st.builds(
    Rule,
    verbs=some("predict", "*", "get"),
    groups=some(GROUP, "*", ""),
    resources=some("modelservices", "*", "models", "modelservices/status", "*/status"),
    names=some("x", "y", "z"),
)
role_keys = st.builds(RoleKey, st.sampled_from(["", *SPACES]), st.sampled_from(["r", "s"]))
roles = st.builds(Role, role_keys, st.lists(rules, max_size=2).map(tuple))


@st.composite
def bindings(draw: st.DrawFn) -> Binding:
    space = draw(st.sampled_from(["", *SPACES]))
    key = RoleKey(draw(st.sampled_from(["", space])), draw(st.sampled_from(["r", "s"])))
    return Binding(space, draw(st.sampled_from("12345")), key, tuple(draw(st.lists(subjects, max_size=3))))


rulings = st.builds(Policy.of, st.lists(roles, max_size=4), st.lists(bindings(), max_size=5))
tightenings = st.builds(
    Tightening,
    name=st.sampled_from("pqr"),
    services=st.none() | some(*SERVICES),
    authentication=st.none() | st.sampled_from(LEVELS),
    issuers=st.none() | some(OWN, ACCOUNTS, "corp", "lab", "unknown"),
)
levels = st.sampled_from(LEVELS)


def is_about(policy: Tightening, service: str) -> bool:
    return policy.services is None or service in policy.services


@given(ruling=rulings, token=tokens, space=st.sampled_from(SPACES), service=st.sampled_from(SERVICES))
def test_where_a_token_is_needed_the_answer_is_that_of_the_roles(
    ruling: Policy, token: tuple[str, dict[str, Any]], space: str, service: str
) -> None:
    user = bearer(*token)
    ask = Ask(verb="predict", group=GROUP, resource="modelservices", namespace=space, name=service)
    optional = AccessTable(written(ruling, at=standing("optional"))).access(space, service)
    needed = AccessTable(written(ruling)).access(space, service)
    assert admits(needed, *token) == (admits(optional, *token) and token[0] != "")
    if user is not None:
        assert admits(optional, *token) == ruling.decide(user, ask).allowed
    elif token[0] == ACCOUNTS:  # that there was such an account is all that the token still says
        assert admits(optional, *token) == (Caller(issuer=ACCOUNTS) in optional.callers)
    else:
        assert not admits(optional, *token)


@given(
    ruling=rulings,
    policies=st.lists(tightenings, max_size=3, unique_by=lambda each: each.name),
    default=levels,
    floor=levels,
    token=tokens,
    service=st.sampled_from(SERVICES),
)
def test_policies_only_take_away(
    ruling: Policy,
    policies: list[Tightening],
    default: Authentication,
    floor: Authentication,
    token: tuple[str, dict[str, Any]],
    service: str,
) -> None:
    at = standing(default, floor)
    found = AccessTable(written(ruling, at=at, policies={"a": policies})).access("a", service)
    said = [each for each in policies if is_about(each, service)]
    asked_for = [LEVELS.index(each.authentication) for each in said if each.authentication]
    strictest = max(asked_for or [LEVELS.index(default)])
    assert LEVELS.index(found.authentication) == max(strictest, LEVELS.index(floor))
    if found.authentication == "none":
        assert found == OPEN
        return
    granted = AccessTable(written(ruling, at=standing(found.authentication))).access("a", service)
    shut_out = any(each.issuers is not None and token[0] not in each.issuers for each in said) and token[0] != ""
    assert admits(found, *token) == (admits(granted, *token) and not shut_out)


@given(ruling=rulings, later=st.lists(bindings(), max_size=3), changed=st.lists(roles, max_size=2))
def test_a_policy_that_was_changed_grants_as_one_made_at_once(
    ruling: Policy, later: list[Binding], changed: list[Role]
) -> None:
    grown = ruling
    for binding in later:
        grown = grown.with_binding(binding.namespace, binding.name, binding)
    for role in changed:
        grown = grown.with_role(role.key, role)
    every = [Role(key, rules) for key, rules in grown.roles.items()]
    fresh = Policy.of(every, sorted(grown.bindings.values(), key=lambda each: (each.namespace, each.name)))
    one, other = AccessTable(written(grown)), AccessTable(written(fresh))
    for space in SPACES:
        for service in SERVICES:
            assert one.access(space, service) == other.access(space, service)


def test_equal_access_is_one_object() -> None:
    grants = AccessTable(written(allowing(Named("User", "ana"))))
    assert grants.access("a", "x") is grants.access("a", "y")
    assert grants.access("b", "x") is grants.access("c", "z")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (Named("User", "ana"), [Caller(issuer=OWN, claims=(Claim(path=("sub",), value="ana"),))]),
        (Named("Group", "ops"), [Caller(issuer=OWN, claims=(Claim(path=("groups",), value="ops", listed=True),))]),
        (Named("User", "corp:ana"), [Caller(issuer="corp", claims=(Claim(path=("sub",), value="ana"),))]),
        (Named("User", "corp:"), []),
        (Named("User", "other:ana"), []),
        (Named("User", "system:kube-scheduler"), []),
        (Named("Group", "system:nodes"), []),
        (
            Named("User", "lab-ana@lab"),
            [
                Caller(
                    issuer="lab",
                    claims=(
                        Claim(path=("profile", "email"), value="ana@lab"),
                        Claim(path=("profile", "email_verified"), value=True),
                    ),
                )
            ],
        ),
        (
            Named("ServiceAccount", "bot", "b"),
            [
                Caller(
                    issuer=ACCOUNTS,
                    claims=(
                        Claim(path=("sub",), value="system:serviceaccount:b:bot"),
                        Claim(path=("kubernetes.io", "serviceaccount", "uid"), value="uid-2"),
                    ),
                )
            ],
        ),
        (Named("ServiceAccount", "gone", "b"), []),
        (Named("Group", "system:serviceaccounts"), [Caller(issuer=ACCOUNTS)]),
        (Named("Group", "system:unauthenticated"), []),
    ],
)
def test_a_subject_means_tokens_of_one_issuer(subject: Named, expected: list[Caller]) -> None:
    masters = Caller(issuer=OWN, claims=(Claim(path=("groups",), value="system:masters", listed=True),))
    found = access_of(allowing(subject))
    assert set(found.callers) == {masters, *expected}
    assert found.authentication == "required"


def test_the_unauthenticated_count_only_where_a_token_is_optional() -> None:
    policy = allowing(Named("Group", "system:unauthenticated"))
    assert ANONYMOUS in access_of(policy, at=standing("optional")).callers
    assert ANONYMOUS not in access_of(policy).callers


def test_an_unknown_issuer_lets_nobody_in() -> None:
    policy = allowing(Named("Group", "system:authenticated"))
    found = access_of(policy, policies=[Tightening(name="p", issuers=frozenset({"typo"}))])
    assert found == Access()


def test_a_policy_that_cannot_be_read_lets_nobody_in() -> None:
    policy = allowing(Named("Group", "system:authenticated"))
    open_floor = standing("none", "none")
    assert access_of(policy, at=open_floor, policies=[Tightening.unreadable("p", None)]) == Access()
    assert access_of(policy, at=open_floor, policies=[Tightening.unreadable("p", ["x"])]) == Access()
    assert access_of(policy, at=open_floor, policies=[Tightening.unreadable("p", ["x", 3])]) == Access()
    assert access_of(policy, at=open_floor, policies=[Tightening.unreadable("p", ["y"])]) == OPEN


def test_limits_add_up_and_name_whom_they_count() -> None:
    first = Tightening(
        name="a",
        limits=(
            RateLimit(requests=5, per="1m", by="user"),
            RateLimit(requests=9, per="1s", by="service"),
        ),
    )
    second = Tightening(
        name="b",
        services=frozenset({"x"}),
        limits=(
            RateLimit(requests=9, per="1s", by="service"),
            RateLimit(requests=2, per="1h", by="group", group="corp:ops"),
        ),
    )
    found = access_of(Policy(), at=standing("none"), policies=[second, first]).limits
    assert [(each.requests, each.seconds, each.by) for each in found] == [
        (5, 60, "user"),
        (9, 1, "service"),
        (2, 3600, "group"),
    ]
    assert Subject(issuer="lab", path=("profile", "email")) in found[0].users
    assert found[2].callers == (Caller(issuer="corp", claims=(Claim(path=("groups",), value="ops", listed=True),)),)


def limiting(name: str, since: str, requests: range, *services: str) -> Tightening:
    limits = tuple(RateLimit(requests=each, per="1s", by="service") for each in requests)
    return Tightening(name=name, since=since, limits=limits, services=frozenset(services) if services else None)


def test_a_service_has_so_many_limits_and_nobody_takes_one_away_by_adding_others() -> None:
    old = limiting("z", "2026-01-01T00:00:00Z", range(1, 17), "x")
    crowd = [limiting(f"a{number}", "2026-02-01T00:00:00Z", range(20 * number, 20 * number + 16)) for number in (1, 2)]
    late = [limiting(f"b{number}", "2026-03-01T00:00:00Z", range(20 * number, 20 * number + 16)) for number in (3, 4)]
    found = access_of(Policy(), at=standing("none"), policies=[*late, *crowd, old]).limits
    assert [each.requests for each in found] == [*range(1, 17), *range(20, 36), *range(40, 56), *range(60, 76)]


def test_a_thousand_policies_for_all_services_beside_those_for_one_are_folded() -> None:
    general = [replace(limiting(f"g{number}", "", range(1, 3)), authentication="optional") for number in range(1_000)]
    own = [limiting(f"s{number}", "", range(3, 4), f"x{number}") for number in range(1_000)]
    last = replace(general[-1], name="strict", authentication="required", issuers=frozenset({"corp"}))
    table = AccessTable(written(Policy(), at=standing("none", "none"), policies={"a": [*general, last, *own]}))
    for each in (table.access("a", f"x{number}") for number in range(0, 1_000, 100)):
        assert (each.authentication, [limit.requests for limit in each.limits]) == ("required", [1, 2, 3])


def test_an_issuer_that_is_not_in_the_settings_is_nobody() -> None:
    found = access_of(allowing(Named("User", "corp:ana"), Named("User", "ana")), at=standing(issuers=(CORP,)))
    assert found.callers == (Caller(issuer="corp", claims=(Claim(path=("sub",), value="ana"),)),)


def test_roles_that_say_nothing_about_predictions_reach_nothing() -> None:
    every = frozenset({"*"})
    assert reach([Rule(verbs=frozenset({"get"}), groups=every, resources=every)]) == NOWHERE
    assert reach([Rule(verbs=every, groups=every, resources=every)]) == Reach(everywhere=True)
    named = replace(Rule(verbs=every, groups=every, resources=every), names=frozenset({"x"}))
    assert reach([named, replace(named, names=frozenset({"y"}))]) == Reach(names=frozenset({"x", "y"}))
