"""Create, update and delete over a store in memory, and the collector that follows them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modelyard.api.schema import crds
from modelyard.base.clock import ManualClock
from modelyard.control.apiserver import definitions, kinds
from modelyard.control.apiserver.collector import Collector
from modelyard.control.apiserver.database import Key
from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.objects import Objects, decoded
from modelyard.control.apiserver.requests import Catalog, DeleteOptions, WriteOptions
from modelyard.control.apiserver.status import StatusError
from modelyard.control.apiserver.store import Store

Object = dict[str, Any]
KINDS = {kind.kind: kind for kind in (*kinds.builtin(), *map(kinds.from_crd, crds()), definitions.KIND)}
SERVICE, CONFIG, NAMESPACE = KINDS["ModelService"], KINDS["ConfigMap"], KINDS["Namespace"]
STRICT = WriteOptions(validation="Strict")
NOW = DeleteOptions()


class Place:
    """Objects with a store and a clock, and short ways to say things."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store, self.clock, self.objects = store, clock, Objects(store, clock)

    async def create(self, kind: Kind, name: str, namespace: str = "n", **more: Any) -> Object:
        metadata = {"name": name, **more.pop("metadata", {})}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **more}
        return (await self.objects.create(kind, namespace if kind.namespaced else None, body, STRICT)).body

    async def change(self, kind: Kind, name: str, change: Callable[[Object], Object], **more: Any) -> Object:
        namespace = "n" if kind.namespaced else None
        return (await self.objects.update(kind, namespace, name, change, STRICT, **more)).body

    async def get(self, kind: Kind, name: str) -> Object | None:
        found = await self.store.get(Key(kind.resource_name, "n" if kind.namespaced else "", name))
        return decoded(found) if found else None

    async def delete(self, kind: Kind, name: str, options: DeleteOptions = NOW) -> Object:
        return await self.objects.delete(kind, "n" if kind.namespaced else None, name, options)


@asynccontextmanager
async def place(*, collecting: bool = False) -> AsyncIterator[Place]:
    clock = ManualClock()
    async with Store.memory(clock) as store:
        made = Place(store, clock)
        await made.create(NAMESPACE, "n")
        if not collecting:
            yield made
            return
        collector = Collector(store, made.objects, Catalog(tuple(KINDS.values())), clock)
        running = asyncio.create_task(collector.run())
        yield made
        running.cancel()
        await asyncio.wait([running])


async def gone(where: Place, kind: Kind, name: str) -> None:
    async with asyncio.timeout(5), where.store.watch(None, None, 0) as watch:
        while await where.get(kind, name) is not None:
            await watch.next()


def owned_by(owner: Object) -> Object:
    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    reference |= {key: owner["metadata"][key] for key in ("name", "uid")}
    return {"ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}]}


def spec(replicas: int = 1) -> Object:
    return {"model": {"uri": "models/iris.onnx"}, "replicas": replicas}


async def code(call: Any) -> int:
    with pytest.raises(StatusError) as caught:
        await call
    return caught.value.code


async def test_a_new_object_gets_an_identity() -> None:
    async with place() as where:
        made = await where.create(SERVICE, "iris", spec=spec(), metadata={"uid": "mine", "generation": 9})
        metadata = made["metadata"]
        assert (metadata["namespace"], metadata["generation"]) == ("n", 1)
        assert metadata["uid"] != "mine"
        assert metadata["creationTimestamp"] == "2023-11-14T22:13:20Z"
        assert metadata["resourceVersion"] == str(where.store.published)
        assert "generation" not in (await where.create(CONFIG, "c"))["metadata"]


async def test_a_name_is_completed_and_taken_names_are_refused() -> None:
    async with place() as where:
        body: Object = {"metadata": {"generateName": "c-"}}
        names = {(await where.objects.create(CONFIG, "n", body, STRICT)).body["metadata"]["name"] for _ in range(5)}
        assert len(names) == 5
        assert all(name.startswith("c-") and len(name) == 7 for name in names)
        await where.create(CONFIG, "taken")
        assert await code(where.create(CONFIG, "taken")) == 409
        assert await code(where.objects.create(CONFIG, "n", {"metadata": {}}, STRICT)) == 422
        assert await code(where.objects.create(CONFIG, "n", {"metadata": 5}, STRICT)) == 400


async def test_objects_need_a_namespace_that_lives() -> None:
    async with place() as where:
        assert await code(where.create(CONFIG, "c", "nowhere")) == 404
        await where.create(CONFIG, "c")
        await where.delete(NAMESPACE, "n")
        assert await code(where.create(CONFIG, "d")) == 403


async def test_the_generation_counts_changes_of_the_desired_state_only() -> None:
    async with place() as where:
        await where.create(SERVICE, "iris", spec=spec())
        made = await where.change(
            SERVICE, "iris", lambda old: {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
        )
        assert made["metadata"]["generation"] == 1
        made = await where.change(SERVICE, "iris", lambda old: {**old, "spec": spec(2)})
        assert made["metadata"]["generation"] == 2
        made = await where.change(
            SERVICE, "iris", lambda old: {**old, "spec": spec(3), "status": {"replicas": 1}}, subresource="status"
        )
        assert (made["metadata"]["generation"], made["spec"]["replicas"], made["status"]["replicas"]) == (2, 2, 1)
        made = await where.change(SERVICE, "iris", lambda old: {**old, "status": {"replicas": 5}})
        assert made["status"]["replicas"] == 1


async def test_a_change_that_changes_nothing_is_not_written() -> None:
    async with place() as where:
        made = await where.create(SERVICE, "iris", spec=spec())
        assert await where.change(SERVICE, "iris", lambda old: old) == made
        assert str(where.store.published) == made["metadata"]["resourceVersion"]


async def test_an_old_version_is_refused_and_a_patch_is_decided_again() -> None:
    async with place() as where:
        old = await where.create(SERVICE, "iris", spec=spec())
        await where.change(SERVICE, "iris", lambda now: {**now, "spec": spec(2)})
        assert await code(where.change(SERVICE, "iris", lambda _: {**old, "spec": spec(3)})) == 409
        unversioned = {**old, "metadata": {"name": "iris"}}
        assert await code(where.change(SERVICE, "iris", lambda _: unversioned)) == 422

        def add(now: Object) -> Object:
            return {**now, "spec": {**now["spec"], "replicas": now["spec"]["replicas"] + 1}}

        await asyncio.gather(*(where.change(SERVICE, "iris", add) for _ in range(5)))
        found = await where.get(SERVICE, "iris")
        assert found is not None
        assert found["spec"]["replicas"] == 7


async def test_a_dry_run_tells_and_changes_nothing() -> None:
    async with place() as where:
        before = where.store.published
        dry = WriteOptions(dry_run=True)
        body = {"apiVersion": SERVICE.api_version, "kind": SERVICE.kind, "metadata": {"name": "x"}, "spec": spec()}
        assert (await where.objects.create(SERVICE, "n", body, dry)).body["metadata"]["uid"]
        assert where.store.published == before
        await where.create(SERVICE, "x", spec=spec())
        assert await code(where.objects.create(SERVICE, "n", body, dry)) == 409
        before = where.store.published
        told = await where.objects.update(SERVICE, "n", "x", lambda old: {**old, "spec": spec(4)}, dry)
        assert told.body["spec"]["replicas"] == 4
        await where.delete(SERVICE, "x", DeleteOptions(dry_run=True))
        assert where.store.published == before


async def test_deletion_waits_for_finalizers() -> None:
    async with place() as where:
        await where.create(CONFIG, "c", metadata={"finalizers": ["example.com/wait"]})
        marked = await where.delete(CONFIG, "c")
        assert marked["metadata"]["deletionTimestamp"]
        assert (await where.delete(CONFIG, "c"))["metadata"]["resourceVersion"] == marked["metadata"]["resourceVersion"]
        await where.change(CONFIG, "c", lambda old: {**old, "metadata": {**old["metadata"], "finalizers": []}})
        assert await where.get(CONFIG, "c") is None


async def test_deletion_checks_what_the_caller_expects() -> None:
    async with place() as where:
        made = await where.create(CONFIG, "c")
        assert await code(where.delete(CONFIG, "c", DeleteOptions(uid="other"))) == 409
        assert await code(where.delete(CONFIG, "c", DeleteOptions(resource_version="1"))) == 409
        done = await where.delete(CONFIG, "c", DeleteOptions(uid=made["metadata"]["uid"]))
        assert (done["kind"], done["status"]) == ("Status", "Success")
        assert await code(where.delete(CONFIG, "c")) == 404
        assert await code(where.delete(NAMESPACE, "default")) == 403


async def test_an_object_that_is_too_large_is_refused() -> None:
    async with place() as where:
        assert (
            await code(where.create(KINDS["ControllerRevision"], "c", revision=1, data={"k": "x" * 1_600_000})) == 413
        )


async def test_children_follow_their_owner() -> None:
    async with place(collecting=True) as where:
        owner = await where.create(SERVICE, "iris", spec=spec())
        child = await where.create(CONFIG, "child", metadata=owned_by(owner))
        await where.create(CONFIG, "grandchild", metadata=owned_by({**child, "apiVersion": "v1", "kind": "ConfigMap"}))
        await where.create(CONFIG, "stranger")
        await where.delete(SERVICE, "iris")
        await gone(where, CONFIG, "grandchild")
        assert await where.get(CONFIG, "child") is None
        assert await where.get(CONFIG, "stranger") is not None


async def test_a_child_of_an_owner_that_is_gone_already_does_not_stay() -> None:
    async with place(collecting=True) as where:
        owner = await where.create(SERVICE, "iris", spec=spec())
        await where.delete(SERVICE, "iris")
        await where.create(CONFIG, "late", metadata=owned_by(owner))
        await gone(where, CONFIG, "late")


async def test_an_owner_deleted_in_the_foreground_goes_after_its_children() -> None:
    async with place(collecting=True) as where:
        owner = await where.create(SERVICE, "iris", spec=spec())
        await where.create(CONFIG, "child", metadata={**owned_by(owner), "finalizers": ["example.com/wait"]})
        await where.delete(SERVICE, "iris", DeleteOptions(propagation="Foreground"))
        async with asyncio.timeout(5), where.store.watch(None, None, 0) as watch:
            while "deletionTimestamp" not in ((await where.get(CONFIG, "child")) or {})["metadata"]:
                await watch.next()
        assert await where.get(SERVICE, "iris") is not None
        await where.change(CONFIG, "child", lambda old: {**old, "metadata": {**old["metadata"], "finalizers": []}})
        await gone(where, SERVICE, "iris")


async def test_orphans_stay_without_their_owner() -> None:
    async with place(collecting=True) as where:
        owner = await where.create(SERVICE, "iris", spec=spec())
        await where.create(CONFIG, "child", metadata=owned_by(owner))
        await where.delete(SERVICE, "iris", DeleteOptions(propagation="Orphan"))
        await gone(where, SERVICE, "iris")
        child = await where.get(CONFIG, "child")
        assert child is not None
        assert "ownerReferences" not in child["metadata"]


async def test_a_namespace_ends_after_its_content() -> None:
    async with place(collecting=True) as where:
        await where.create(CONFIG, "c")
        await where.create(SERVICE, "iris", spec=spec())
        ending = await where.delete(NAMESPACE, "n")
        assert ending["status"]["phase"] == "Terminating"
        await gone(where, NAMESPACE, "n")
        assert await where.get(CONFIG, "c") is None
        assert await where.get(SERVICE, "iris") is None


async def test_a_namespace_keeps_its_own_fields_when_others_write_it() -> None:
    async with place() as where:
        made = await where.create(NAMESPACE, "m", spec={"finalizers": []}, status={"phase": "Odd"})
        assert (made["spec"], made["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "m"}
        made = await where.change(NAMESPACE, "m", lambda old: {**old, "spec": {"finalizers": []}, "status": {}})
        assert (made["spec"], made["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


async def test_old_events_are_forgotten() -> None:
    async with place() as where:
        collector = Collector(where.store, where.objects, Catalog(tuple(KINDS.values())), where.clock)
        about = {"kind": "ModelService", "name": "iris", "namespace": "n"}
        await where.create(KINDS["Event"], "old", involvedObject=about)
        await where.create(CONFIG, "c")
        where.clock.advance(3601)
        await where.create(KINDS["Event"], "young", involvedObject=about)
        running = asyncio.create_task(collector.maintain())
        await asyncio.sleep(0)
        where.clock.advance(61)
        await gone(where, KINDS["Event"], "old")
        running.cancel()
        await asyncio.wait([running])
        assert await where.get(KINDS["Event"], "young") is not None
        assert await where.get(CONFIG, "c") is not None


async def test_the_definitions_in_the_store_are_those_of_this_release() -> None:
    async with place() as where:
        first, second, *third = (dict(crd) for crd in crds())
        await definitions.publish(where.store, where.objects, [first, second], where.clock)
        changed = {**second, "spec": {**second["spec"], "scope": "Cluster"}}
        await definitions.publish(where.store, where.objects, [changed, *third], where.clock)
        found = {
            name: await where.get(definitions.KIND, name) for name in (each["metadata"]["name"] for each in crds())
        }
        scopes = [body and body["spec"]["scope"] for body in found.values()]
        assert scopes == [None, "Cluster", *("Namespaced" for _ in third)]
        before = where.store.published
        await definitions.publish(where.store, where.objects, [changed, *third], where.clock)
        assert where.store.published == before
