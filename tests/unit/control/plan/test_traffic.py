"""Shares: whatever is ready and in force, they add up, and go to nobody who is less ready than those that serve."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.service import TrafficSplit
from modelyard.control.ir.observed import Observed, ObservedReplica, ObservedRoute, ObservedUnit, ReplicaState
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.route import Backend, Route
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key
from modelyard.control.plan import traffic
from modelyard.control.plan.rollout import Step, roll
from modelyard.control.plan.traffic import Traffic
from modelyard.wire.work import ServeWork, WorkSpec

OWNER = Key(kind="ModelService", namespace="default", name="iris")
NAMES = tuple(f"iris-svc-0000{number}" for number in range(1, 5))


def revision(name: str) -> Revision:
    unit = Unit(name=f"{name}.default", owner=OWNER, revision=name, work=WorkSpec(serve=ServeWork(models=())))
    return Revision(name=name, owner=OWNER, number=int(name[-1]), inputs_hash=name, inputs={}, unit=unit)


REVISIONS = tuple(revision(name) for name in NAMES)


def observed(ready: dict[str, int]) -> Observed:
    def members(unit: str, count: int) -> tuple[ObservedReplica, ...]:
        return tuple(ObservedReplica(name=f"{unit}-{i}", state=ReplicaState.READY) for i in range(count))

    return Observed(
        units=tuple(
            ObservedUnit(unit=each.unit, replicas=3, members=members(each.unit.name, ready.get(each.name, 0)))
            for each in REVISIONS
        )
    )


def in_force(shares: dict[str, int]) -> ObservedRoute:
    backends = tuple(Backend(unit=f"{name}.default", weight=weight) for name, weight in shares.items() if weight)
    return ObservedRoute(acknowledged=Route(owner=OWNER, ids=("iris",), backends=backends) if backends else None)


def shared(
    declared: list[tuple[str, Any]], ready: dict[str, int], before: dict[str, int], replicas: int = 3
) -> Traffic:
    splits = tuple(TrafficSplit.model_validate({"revision": name, **what}) for name, what in declared)
    named, missing = traffic.named(splits, REVISIONS)
    route, seen = in_force(before), observed(ready)
    step = Step(revisions=REVISIONS, replicas=replicas, latest_ready=None, observed=seen, route=route, named=named)
    return traffic.share(splits, roll(step), replicas=replicas, observed=seen, route=route, missing=missing)


def weights(found: Traffic) -> dict[str, int]:
    return {each.unit.removesuffix(".default"): each.weight for each in found.backends}


@st.composite
def partitions(draw: st.DrawFn, most: int = 4) -> dict[str, int]:
    """Revisions, and percents that add up to 100."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=most, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(names) - 1, max_size=len(names) - 1)))
    return dict(zip(names, (b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)), strict=True))


READY = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3))


@settings(max_examples=300, deadline=None)
@given(partitions(), READY, partitions() | st.just({}), st.integers(1, 3))
def test_shares_add_up_and_go_to_nobody_who_is_less_ready(
    declared: dict[str, int], ready: dict[str, int], before: dict[str, int], replicas: int
) -> None:
    found = weights(
        shared([(name, {"percent": percent}) for name, percent in declared.items()], ready, before, replicas)
    )
    serving = {name for name, weight in before.items() if weight}
    demanded = min(replicas, max((ready.get(name, 0) for name in serving), default=0))
    able = {
        name: percent
        for name, percent in declared.items()
        if percent and ready.get(name, 0) >= max(1, 1 if name in serving else demanded)
    }
    assert sum(found.values()) in (0, 100)
    if able:
        assert found.keys() == able.keys()
        for name, weight in found.items():
            assert abs(weight - able[name] * 100 / sum(able.values())) < 1, "in proportion"
    else:
        assert all(ready.get(name, 0) for name in found)
        assert found or not any(ready.get(name, 0) for name in serving), "what serves goes on"
    if len(able) == sum(percent > 0 for percent in declared.values()):
        assert found == able, "as declared"


def test_a_share_in_three_parts_of_which_one_is_not_ready_is_whole() -> None:
    declared = [(NAMES[0], {"percent": 20}), (NAMES[1], {"percent": 40}), (NAMES[2], {"percent": 40})]
    found = shared([*declared[:2], (NAMES[2], {"percent": 40})], {NAMES[0]: 3, NAMES[1]: 3}, {NAMES[0]: 100})
    assert weights(found) == {NAMES[0]: 33, NAMES[1]: 67}
    assert [each.name for each in found.waiting] == [NAMES[2]]


def test_a_share_waits_until_its_revision_is_as_ready_as_those_that_serve() -> None:
    declared = [(NAMES[0], {"percent": 50}), (NAMES[1], {"percent": 50})]
    assert weights(shared(declared, {NAMES[0]: 2, NAMES[1]: 1}, {NAMES[0]: 100})) == {NAMES[0]: 100}
    assert weights(shared(declared, {NAMES[0]: 2, NAMES[1]: 2}, {NAMES[0]: 100})) == {NAMES[0]: 50, NAMES[1]: 50}


def test_a_mirror_is_no_mirror_of_itself_and_waits_for_a_replica() -> None:
    declared: list[tuple[str, Any]] = [(NAMES[0], {"percent": 100}), ("latest", {"mirror": {"percent": 30}})]
    found = shared(declared, {NAMES[0]: 1, NAMES[3]: 1}, {NAMES[0]: 100})
    assert found.mirror is not None
    assert (found.mirror.unit, found.mirror.percent, found.mirror.compared_percent) == (f"{NAMES[3]}.default", 30, 10)
    assert shared(declared, {NAMES[0]: 1}, {NAMES[0]: 100}).mirror is None, "latest is what serves"
    pinned: list[tuple[str, Any]] = [(NAMES[0], {"percent": 100}), (NAMES[1], {"mirror": {}})]
    found = shared(pinned, {NAMES[0]: 1}, {NAMES[0]: 100})
    assert (found.mirror, [each.name for each in found.waiting]) == (None, [NAMES[1]])


def test_while_a_revision_is_missing_nothing_changes_and_without_anything_in_force_the_others_serve() -> None:
    declared = [("iris-svc-00009", {"percent": 60}), (NAMES[1], {"percent": 40})]
    ready = dict.fromkeys(NAMES, 3)
    found = shared(declared, ready, {NAMES[0]: 70, NAMES[2]: 30})
    assert weights(found) == {NAMES[0]: 70, NAMES[2]: 30}
    assert [(each.index, each.revision) for each in found.missing] == [(0, "iris-svc-00009")]
    assert weights(shared(declared, ready, {})) == {NAMES[1]: 100}


def test_numbers_of_revisions_that_stay_and_tags_are_versions() -> None:
    declared = [(NAMES[0], {"percent": 90, "tag": "stable"}), (NAMES[2], {"percent": 10})]
    found = shared(declared, dict.fromkeys(NAMES, 3), {NAMES[0]: 100})
    assert [(each.name, each.number) for each in found.versions] == [
        ("4", "4"),
        ("3", "3"),
        ("1", "1"),
        ("stable", "1"),
    ]
