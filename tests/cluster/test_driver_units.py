"""Units on a real cluster: started, resized, replaced, drained and forgotten."""

import json

import pytest

from cluster_driver_testing import Rig, driving
from cluster_testing import Namespace
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.ir.actions import Resize, Start, Stop
from modelyard.control.ir.observed import ReplicaState

pytestmark = pytest.mark.usefixtures("stand_in")


async def test_a_started_unit_gets_ready_with_an_address_for_each_replica(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit()
        await rig.apply(Start(unit=iris, replicas=2))
        first, second = await rig.ready(iris.name, 2)
        assert first.address != second.address
        assert first.address.endswith(":8080")
        assert first.name.startswith("iris-svc-00001-")
        assert 0 < first.started_at <= second.started_at + 60
        assert (first.trouble, first.restarts) == (None, 0)
        assert (await rig.get(first.address, "/work"))["serve"]["models"][0]["name"] == "iris.default"
        kept = rig.members(iris.name)
        await rig.apply(Start(unit=iris, replicas=2))
        assert rig.members(iris.name) == kept
        found = rig.found(iris.name)
        assert found is not None
        assert (found.unit, found.replicas) == (iris, 2)


async def test_what_surrounds_a_unit_is_there_before_its_pods(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit()
        await rig.apply(Start(unit=iris, replicas=0))
        assert namespace.all("networkpolicies") == []
        await rig.apply(Resize(unit=iris.name, owner=iris.owner, replicas=1))
        (policy,), (budget,) = namespace.all("networkpolicies"), namespace.all("poddisruptionbudgets")
        assert policy["metadata"]["ownerReferences"][0]["kind"] == "Deployment"
        assert budget["spec"]["maxUnavailable"] == 1
        await rig.ready(iris.name)


async def test_a_pod_that_is_killed_is_replaced(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit()
        await rig.apply(Start(unit=iris, replicas=1))
        (before,) = await rig.ready(iris.name)
        namespace("delete", "pod", before.name, "--grace-period=1", "--wait=false")
        await rig.until(lambda: before.name not in {m.name for m in rig.members(iris.name)}, "it is gone")
        (after,) = await rig.ready(iris.name)
        assert after.address != before.address


async def test_a_unit_grows_and_shrinks(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(lever="drain=1")
        await rig.apply(Start(unit=iris, replicas=1))
        (kept,) = await rig.ready(iris.name)
        await rig.apply(Resize(unit=iris.name, owner=iris.owner, replicas=2))
        await rig.ready(iris.name, 2)
        await rig.apply(Resize(unit=iris.name, owner=iris.owner, replicas=1))
        states = {ReplicaState.READY, ReplicaState.DRAINING}
        await rig.until(lambda: {m.state for m in rig.members(iris.name)} == states, "one drains")
        assert len(await rig.ready(iris.name)) == 1
        assert kept.name


async def test_another_number_by_an_autoscaler_is_left_alone(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit()
        await rig.apply(Start(unit=iris, replicas=1))
        await rig.ready(iris.name)
        namespace("scale", "deployment", "iris-svc-00001", "--replicas=2")
        await rig.ready(iris.name, 2)
        found = rig.found(iris.name)
        assert found is not None
        assert found.replicas == 1
        await rig.apply(Resize(unit=iris.name, owner=iris.owner, replicas=1))
        assert namespace.find("deployment", "iris-svc-00001")["spec"]["replicas"] == 2


async def test_a_stopped_unit_drains_and_leaves_nothing(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(lever="drain=1")
        await rig.apply(Start(unit=iris, replicas=1))
        await rig.ready(iris.name)
        await rig.apply(Stop(unit=iris.name, owner=iris.owner))
        await rig.until(lambda: [m.state for m in rig.members(iris.name)] == [ReplicaState.DRAINING], "it drains")
        with pytest.raises(RetryLater):
            await rig.driver.apply(Start(unit=iris, replicas=1))
        await rig.apply(Stop(unit=iris.name, owner=iris.owner))
        await rig.until(lambda: rig.found(iris.name) is None, "it is forgotten")
        left = namespace("get", "deployments,replicasets,pods,networkpolicies,pdb", "-o", "name").split()
        assert left == []
        await rig.apply(Start(unit=iris, replicas=1))
        await rig.ready(iris.name)


async def test_only_its_owner_changes_a_unit_and_a_name_belongs_to_one_content(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris, rose = rig.unit(), rig.unit("rose-svc-00001")
        await rig.apply(Start(unit=iris, replicas=0))
        for action in (Resize(unit=iris.name, owner=rose.owner, replicas=1), Stop(unit=iris.name, owner=rose.owner)):
            with pytest.raises(UserError, match="belongs to"):
                await rig.driver.apply(action)
        with pytest.raises(UserError, match="another content"):
            await rig.driver.apply(Start(unit=rig.unit(lever="say=hello"), replicas=1))
        with pytest.raises(RetryLater):
            await rig.driver.apply(Resize(unit=rose.name, owner=rose.owner, replicas=1))


async def test_what_somebody_else_made_under_the_name_is_not_taken_over(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        namespace("create", "deployment", "iris-svc-00001", "--image=localhost/pause:1", "--replicas=0")
        with pytest.raises(UserError, match="is not of ModelService"):
            await rig.driver.apply(Start(unit=rig.unit(), replicas=1))


async def test_the_recorded_template_runs_and_not_one_of_this_release(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit()
        recorded = rig.driver.template(iris)
        recorded["metadata"]["annotations"]["example.com/recorded"] = "yes"
        rig.templates[iris.name] = recorded
        await rig.apply(Start(unit=iris, replicas=1))
        (pod,) = await rig.ready(iris.name)
        stored = namespace.find("pod", pod.name)
        assert stored["metadata"]["annotations"]["example.com/recorded"] == "yes"


async def test_whoever_comes_next_sees_the_same(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit()
        await rig.apply(Start(unit=iris, replicas=1))
        await rig.ready(iris.name)
        before = rig.driver.observe(iris.owner)
    async with driving(namespace) as rig:
        assert rig.driver.observe(iris.owner) == before


async def test_streams_get_what_has_begun_without_being_restarted(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        fraud = rig.stream()
        await rig.apply(Start(unit=fraud, replicas=1))
        (first,) = await rig.ready(fraud.name)
        assert first.report is not None
        assert first.report.stream is not None
        assert (first.report.stream.records, first.address) == (7, "")
        await rig.apply(Resize(unit=fraud.name, owner=fraud.owner, replicas=2, begun=(0, 1)))
        found = rig.found(fraud.name)
        assert found is not None
        assert (found.replicas, found.begun) == (2, (0, 1))
        both = await rig.ready(fraud.name, 2)
        assert first.name in {each.name for each in both}
        assert _begun(rig, first.name) == []
        (second,) = (each.name for each in both if each.name != first.name)
        assert _begun(rig, second) == [0, 1]


def _begun(rig: Rig, pod: str) -> list[int]:
    work = rig.namespace.find("pod", pod)["metadata"]["annotations"]["modelyard.dev/work"]
    found: list[int] = json.loads(work)["stream"].get("begun", [])
    return found
