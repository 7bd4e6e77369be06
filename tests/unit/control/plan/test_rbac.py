"""Who may do what, compared with a reference that knows no index."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.plan.rbac import (
    MASTERS,
    Ask,
    Binding,
    Policy,
    Role,
    Rule,
    User,
    account_name,
    account_of,
    not_held,
)

Object = dict[str, Any]
GROUP = "modelyard.dev"


def reference(roles: list[Object], bindings: list[Object], user: User, ask: Ask) -> bool:
    """As the documentation of Kubernetes tells it: bindings -> role -> rules, one after the other."""
    if MASTERS in user.groups:
        return True
    for binding in bindings:
        space = binding["metadata"].get("namespace")
        if space is not None and (ask.path or space != ask.namespace):
            continue
        if not any(is_meant(subject, space, user) for subject in binding["subjects"]):
            continue
        wanted = (space if binding["roleRef"]["kind"] == "Role" else None, binding["roleRef"]["name"])
        for role in roles:
            key = (role["metadata"].get("namespace"), role["metadata"]["name"])
            if key == wanted and any(says_yes(rule, ask) for rule in role["rules"]):
                return True
    return False


def is_meant(subject: Object, space: str | None, user: User) -> bool:
    if subject["kind"] == "User":
        return bool(subject["name"] == user.name)
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    where = subject.get("namespace") or space
    return where is not None and user.name == f"system:serviceaccount:{where}:{subject['name']}"


def says_yes(rule: Object, ask: Ask) -> bool:
    verbs = rule.get("verbs", [])
    if "*" not in verbs and ask.verb not in verbs:
        return False
    if ask.path:
        for path in rule.get("nonResourceURLs", []):
            if path == ask.path or (path.endswith("*") and ask.path.startswith(path[:-1])):
                return True
        return False
    whole = f"{ask.resource}/{ask.subresource}" if ask.subresource else ask.resource
    resources, groups = rule.get("resources", []), rule.get("apiGroups", [])
    if "*" not in groups and ask.group not in groups:
        return False
    every = f"*/{ask.subresource}" if ask.subresource else "*"
    if not {"*", whole, every} & set(resources):
        return False
    names = rule.get("resourceNames", [])
    return not names or ask.name in names


SPACES = ["a", "b"]
NAMES = ["x", "y"]
VERBS = ["get", "list", "predict"]
RESOURCES = ["models", "modelservices"]
PATHS = ["/a", "/a/b", "/c"]


def some(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


def rules(*, paths: bool) -> st.SearchStrategy[Object]:
    resource = st.fixed_dictionaries(
        {
            "verbs": some([*VERBS, "*"]),
            "apiGroups": some([GROUP, "", "*"]),
            "resources": some([*RESOURCES, "*", "*/status", "models/status", "modelservices/scale"]),
        },
        optional={"resourceNames": some(["iris", "rain"])},
    )
    path = st.fixed_dictionaries(
        {"verbs": some(["get", "post", "*"]), "nonResourceURLs": some([*PATHS, "*", "/a*", "/a/*"])}
    )
    return resource | path if paths else resource


def meta(spaces: list[str | None]) -> st.SearchStrategy[Object]:
    return st.builds(
        lambda space, name: {"name": name, **({"namespace": space} if space else {})},
        st.sampled_from(spaces),
        st.sampled_from(NAMES),
    )


def unique(found: list[Object]) -> list[Object]:
    return list({(each["metadata"].get("namespace"), each["metadata"]["name"]): each for each in found}.values())


ROLES = st.lists(
    st.fixed_dictionaries({"metadata": meta(list(SPACES)), "rules": st.lists(rules(paths=False), max_size=3)})
    | st.fixed_dictionaries({"metadata": meta([None]), "rules": st.lists(rules(paths=True), max_size=3)}),
    max_size=6,
).map(unique)
SUBJECTS = st.lists(
    st.fixed_dictionaries({"kind": st.just("User"), "name": st.sampled_from(["ana", "system:serviceaccount:a:bot"])})
    | st.fixed_dictionaries({"kind": st.just("Group"), "name": st.sampled_from(["team", "other"])})
    | st.fixed_dictionaries(
        {"kind": st.just("ServiceAccount"), "name": st.just("bot")}, optional={"namespace": st.sampled_from(SPACES)}
    ),
    max_size=3,
)
BINDINGS = st.lists(
    st.builds(
        lambda metadata, kind, name, subjects: {
            "metadata": metadata,
            "roleRef": {"kind": kind if "namespace" in metadata else "ClusterRole", "name": name},
            "subjects": subjects,
        },
        meta([*SPACES, None]),
        st.sampled_from(["Role", "ClusterRole"]),
        st.sampled_from(NAMES),
        SUBJECTS,
    ),
    max_size=6,
).map(unique)
USERS = st.builds(
    User,
    st.sampled_from(["ana", "eve", account_name("a", "bot"), account_name("b", "bot")]),
    st.lists(st.sampled_from(["team", "other", "third"]), max_size=2).map(tuple),
)
ASKS = st.builds(
    Ask,
    verb=st.sampled_from(VERBS),
    namespace=st.sampled_from(["", *SPACES]),
    group=st.sampled_from([GROUP, "", "apps"]),
    resource=st.sampled_from(RESOURCES),
    subresource=st.sampled_from(["", "status", "scale"]),
    name=st.sampled_from(["", "iris", "rain", "snow"]),
) | st.builds(Ask, verb=st.sampled_from(["get", "post"]), path=st.sampled_from([*PATHS, "/a/b/c"]))


def policy(roles: list[Object], bindings: list[Object]) -> Policy:
    return Policy.of(map(Role.of, roles), map(Binding.of, bindings))


@given(ROLES, BINDINGS, st.lists(st.tuples(USERS, ASKS), min_size=1, max_size=20))
def test_it_decides_as_a_reference_without_an_index(
    roles: list[Object], bindings: list[Object], asked: list[tuple[User, Ask]]
) -> None:
    found = policy(roles, bindings)
    for user, ask in asked:
        decision = found.decide(user, ask)
        assert decision.allowed == reference(roles, bindings, user, ask)
        assert bool(decision.reason) == decision.allowed


@given(ROLES, BINDINGS, USERS, ASKS)
def test_the_rules_of_a_user_answer_as_the_policy_does(
    roles: list[Object], bindings: list[Object], user: User, ask: Ask
) -> None:
    found = policy(roles, bindings)
    rules = found.rules_for(user, "" if ask.path else ask.namespace)
    assert any(rule.allows(ask) for rule in rules) == found.decide(user, ask).allowed


@given(ROLES, BINDINGS, ROLES, BINDINGS, st.lists(st.tuples(USERS, ASKS), min_size=1, max_size=20))
def test_a_policy_that_is_changed_piece_by_piece_is_the_one_made_at_once(
    roles: list[Object],
    bindings: list[Object],
    later_roles: list[Object],
    later_bindings: list[Object],
    asked: list[tuple[User, Ask]],
) -> None:
    first = changing = policy(roles, bindings)
    answers = [first.decide(user, ask).allowed for user, ask in asked]
    kept = {role.key: role for role in map(Role.of, later_roles)}
    for key in {*(Role.of(each).key for each in roles), *kept}:
        changing = changing.with_role(key, kept.get(key))
    bound = {(each.namespace, each.name): each for each in map(Binding.of, later_bindings)}
    for space, name in {*((each.namespace, each.name) for each in map(Binding.of, bindings)), *bound}:
        changing = changing.with_binding(space, name, bound.get((space, name)))
    whole = Policy.of(kept.values(), bound.values())
    for user, ask in asked:
        assert changing.decide(user, ask).allowed == whole.decide(user, ask).allowed
    assert [first.decide(user, ask).allowed for user, ask in asked] == answers


RULE_LISTS = st.lists(rules(paths=True).map(Rule.of), max_size=4)


@given(RULE_LISTS, RULE_LISTS, st.lists(ASKS, max_size=20))
def test_what_may_be_granted_allows_nothing_that_is_not_held(
    held: list[Rule], wanted: list[Rule], asked: list[Ask]
) -> None:
    if not not_held(held, wanted):
        for ask in asked:
            assert any(rule.allows(ask) for rule in held) or not any(rule.allows(ask) for rule in wanted)


@given(RULE_LISTS)
def test_everybody_holds_their_own_rules(held: list[Rule]) -> None:
    assert not_held(held, held) == []
    assert (
        not_held([Rule.of({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "nonResourceURLs": ["*"]})], held)
        == []
    )


@given(st.builds(Rule.of, rules(paths=True)))
def test_a_rule_survives_its_own_form(rule: Rule) -> None:
    assert Rule.of(rule.body()) == rule


def test_what_is_missing_is_named_by_its_verbs() -> None:
    held = [Rule.of({"verbs": ["get"], "apiGroups": [GROUP], "resources": ["models"]})]
    wanted = [Rule.of({"verbs": ["get", "delete"], "apiGroups": [GROUP], "resources": ["models"]})]
    assert [each.body()["verbs"] for each in not_held(held, wanted)] == [["delete"]]


def test_two_held_rules_may_cover_one_together() -> None:
    held = [Rule.of({"verbs": [verb], "apiGroups": [GROUP], "resources": ["*/status"]}) for verb in ("get", "list")]
    wanted = [Rule.of({"verbs": ["get", "list"], "apiGroups": [GROUP], "resources": ["models/status"]})]
    assert not_held(held, wanted) == []


def test_a_rule_of_very_many_parts_is_not_compared_part_by_part() -> None:
    many = [f"v{number}" for number in range(200)]
    wanted = [Rule.of({"verbs": many, "apiGroups": many, "resources": many})]
    assert not_held([], wanted) == wanted
    assert not_held([Rule.of({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})], wanted) == []


@pytest.mark.parametrize(
    "name", ["ana", "system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:b:c"]
)
def test_other_users_are_no_accounts(name: str) -> None:
    assert account_of(name) is None


def test_an_account_is_found_by_its_user_name() -> None:
    assert account_of(account_name("default", "ana")) == ("default", "ana")


def test_the_masters_may_do_everything() -> None:
    root = User("root", (MASTERS,))
    assert Policy().decide(root, Ask(verb="get", path="/x")).allowed
    assert any(rule.allows(Ask(verb="get", path="/x")) for rule in Policy().rules_for(root, "a"))
