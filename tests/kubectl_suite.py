"""What real kubectl can do with our kinds, on the embedded API server as well as on Kubernetes."""

import json
import subprocess
import uuid
from pathlib import Path

from kubectl_testing import Kubectl, Output, until

MANIFEST = """
apiVersion: modelyard.dev/v1alpha1
kind: ModelService
metadata:
  name: iris
  labels: {team: search}
spec:
  model: {name: iris-v1}
  replicas: 1
---
apiVersion: modelyard.dev/v1alpha1
kind: Model
metadata:
  name: iris-v1
spec:
  uri: models/iris.onnx
"""


class Space:
    """kubectl in a namespace of one test."""

    def __init__(self, kubectl: Kubectl, namespace: str, folder: Path) -> None:
        self._kubectl, self.namespace = kubectl, ("-n", namespace)
        self.manifest = folder / "manifest.yaml"
        self.manifest.write_text(MANIFEST)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return self._kubectl(*self.namespace, *arguments, stdin=stdin)

    def run(self, *arguments: str, stdin: str | None = None, code: int = 0) -> Output:
        return self._kubectl.run(*self.namespace, *arguments, stdin=stdin, code=code)

    def fails(self, *arguments: str, stdin: str | None = None) -> str:
        return self._kubectl.run(*self.namespace, *arguments, stdin=stdin, code=1).err

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return self._kubectl.start(*self.namespace, *arguments)

    def apply(self) -> str:
        return self("apply", "-f", str(self.manifest))


class KubectlSuite:
    """Needs the fixtures `kubectl` and `space`."""

    def test_apply_creates_changes_and_leaves_alone(self, space: Space) -> None:
        assert space.apply().splitlines() == [
            "modelservice.modelyard.dev/iris created",
            "model.modelyard.dev/iris-v1 created",
        ]
        assert set(space.apply().split()) >= {"unchanged"}
        space.manifest.write_text(MANIFEST.replace("replicas: 1", "replicas: 3").replace("labels: {team: search}", ""))
        assert "modelservice.modelyard.dev/iris configured" in space.apply()
        found = json.loads(space("get", "msvc", "iris", "-o", "json"))
        assert (found["spec"]["replicas"], "labels" in found["metadata"], found["metadata"]["generation"]) == (
            3,
            False,
            2,
        )

    def test_objects_may_be_applied_in_any_order(self, space: Space) -> None:
        first, second = MANIFEST.split("---")
        assert "created" in space("apply", "-f", "-", stdin=second)
        assert "created" in space("apply", "-f", "-", stdin=first)

    def test_diff_shows_what_apply_would_change(self, space: Space) -> None:
        assert "+kind: ModelService" in space.run("diff", "-f", str(space.manifest), code=1).out
        space.apply()
        assert space("diff", "-f", str(space.manifest)) == ""
        space.manifest.write_text(MANIFEST.replace("replicas: 1", "replicas: 3"))
        shown = space.run("diff", "-f", str(space.manifest), code=1).out
        assert "-  replicas: 1" in shown
        assert "+  replicas: 3" in shown

    def test_get_prints_tables_documents_and_single_values(self, space: Space) -> None:
        space.apply()
        head, row = space("get", "modelservice").splitlines()
        assert head.split() == ["NAME", "URL", "READY", "REASON", "REPLICAS", "DESIRED", "LATEST", "AGE"]
        assert row.split()[0] == "iris"
        assert "models/iris.onnx" in space("get", "mdl", "-o", "wide").splitlines()[1]
        assert "uri: models/iris.onnx" in space("get", "mdl", "iris-v1", "-o", "yaml")
        assert space("get", "msvc", "iris", "-o", "jsonpath={.spec.model.name}") == "iris-v1"
        assert space("get", "msvc,mdl", "-o", "name").split() == [
            "modelservice.modelyard.dev/iris",
            "model.modelyard.dev/iris-v1",
        ]

    def test_a_category_lists_all_kinds(self, space: Space) -> None:
        space.apply()
        shown = space("get", "modelyard")
        assert "modelservice.modelyard.dev/iris" in shown
        assert "model.modelyard.dev/iris-v1" in shown

    def test_selectors_choose(self, space: Space) -> None:
        space.apply()
        assert space("get", "msvc", "-l", "team=search", "-o", "name").strip() == "modelservice.modelyard.dev/iris"
        assert space("get", "msvc", "-l", "team notin (search)", "-o", "name") == ""
        assert space("get", "mdl", "--field-selector", "metadata.name=iris-v1", "-o", "name").strip()
        assert space("get", "mdl", "--field-selector", "metadata.name!=iris-v1", "-o", "name") == ""

    def test_lists_in_chunks_are_complete(self, space: Space) -> None:
        items = "---".join(
            f"\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{number}, labels: {{of: test}}}}\n"
            for number in range(12)
        )
        space("apply", "-f", "-", stdin=items)
        assert len(space("get", "cm", "-l", "of=test", "--chunk-size=5", "-o", "name").split()) == 12
        assert len(space("get", "cm", "-l", "of=test", "--chunk-size=5", "--no-headers").splitlines()) == 12

    def test_a_watch_prints_changes_as_they_come(self, space: Space) -> None:
        space.apply()
        watching = space.start("get", "msvc", "iris", "-w", "-o", "jsonpath={.spec.replicas}{'\\n'}")
        assert watching.stdout is not None
        try:
            assert watching.stdout.readline() == "1\n"
            space("scale", "msvc/iris", "--replicas=4")
            assert watching.stdout.readline() == "4\n"
        finally:
            watching.kill()
            watching.wait()
            watching.stdout.close()

    def test_a_watched_table_has_its_header_once(self, space: Space) -> None:
        space.apply()
        watching = space.start("get", "msvc", "-w")
        assert watching.stdout is not None
        try:
            lines = [watching.stdout.readline() for _ in range(2)]
            space("label", "msvc", "iris", "a=b")
            lines.append(watching.stdout.readline())
            assert [line.split()[0] for line in lines] == ["NAME", "iris", "iris"]
        finally:
            watching.kill()
            watching.wait()
            watching.stdout.close()

    def test_explain_describes_every_field(self, kubectl: Kubectl) -> None:
        shown = kubectl("explain", "modelservice", "--recursive")
        assert "replicas\t<integer>" in shown
        assert "VERSION:    v1alpha1" in shown
        for word in ("modelservice.spec.model", "model.spec.uri", "runtime.spec", "secret.data", "cm", "lease.spec"):
            assert "<no description>" not in kubectl("explain", word)

    def test_wait_ends_when_a_condition_holds(self, space: Space) -> None:
        space.apply()
        waiting = space.start("wait", "msvc/iris", "--for=condition=Ready", "--timeout=20s")
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        patch = json.dumps({"status": {"conditions": [condition]}})
        space("patch", "msvc", "iris", "--subresource=status", "--type=merge", "-p", patch)
        out, _ = waiting.communicate(timeout=20)
        assert (out.strip(), waiting.returncode) == ("modelservice.modelyard.dev/iris condition met", 0)

    def test_patch_label_annotate_and_scale_change_an_object(self, space: Space) -> None:
        space.apply()
        space("patch", "msvc", "iris", "--type=merge", "-p", '{"spec": {"replicas": 2}}')
        space(
            "patch", "msvc", "iris", "--type=json", "-p", '[{"op": "replace", "path": "/spec/timeout", "value": "30s"}]'
        )
        space("label", "msvc", "iris", "team-", "tier=gold")
        space("annotate", "msvc", "iris", "note=hello")
        assert "scaled" in space("scale", "msvc", "iris", "--replicas=5", "--current-replicas=2")
        found = json.loads(space("get", "msvc", "iris", "-o", "json"))
        assert (found["spec"]["replicas"], found["spec"]["timeout"]) == (5, "30s")
        assert found["metadata"]["labels"] == {"tier": "gold"}
        assert found["metadata"]["annotations"]["note"] == "hello"
        assert "Expected replicas to be 2" in space.fails(
            "scale", "msvc", "iris", "--replicas=1", "--current-replicas=2"
        )

    def test_describe_shows_the_object_and_its_events(self, space: Space) -> None:
        space.apply()
        found = json.loads(space("get", "msvc", "iris", "-o", "json"))
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "iris.1"},
            "involvedObject": {
                "apiVersion": found["apiVersion"],
                "kind": "ModelService",
                "name": "iris",
                "namespace": found["metadata"]["namespace"],
                "uid": found["metadata"]["uid"],
            },
            "reason": "Started",
            "message": "replica iris-0 is ready",
            "type": "Normal",
            "count": 1,
            "source": {"component": "modelyard"},
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:00:00Z",
        }
        space("create", "-f", "-", stdin=json.dumps(event))
        shown = space("describe", "msvc", "iris")
        assert "Replicas:  1" in shown
        assert "replica iris-0 is ready" in shown
        assert "Started" in space("get", "events")

    def test_delete_removes_by_name_file_and_selector(self, space: Space) -> None:
        space.apply()
        assert "deleted" in space("delete", "-f", str(space.manifest))
        space.apply()
        space("delete", "msvc", "-l", "team=search")
        space("delete", "mdl", "--all", "--cascade=foreground")
        assert space("get", "modelyard", "-o", "name") == ""
        assert 'modelservices.modelyard.dev "iris" not found' in space.fails("delete", "msvc", "iris")
        space("delete", "msvc", "iris", "--ignore-not-found")

    def test_deletion_waits_for_a_finalizer(self, space: Space) -> None:
        space.apply()
        space("patch", "msvc", "iris", "--type=merge", "-p", '{"metadata": {"finalizers": ["example.com/wait"]}}')
        space("delete", "msvc", "iris", "--wait=false")
        assert space("get", "msvc", "iris", "-o", "jsonpath={.metadata.deletionTimestamp}")
        space("patch", "msvc", "iris", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        assert "not found" in space.fails("get", "msvc", "iris")

    def test_dry_runs_of_both_sides_change_nothing(self, space: Space) -> None:
        assert "created (server dry run)" in space("apply", "-f", str(space.manifest), "--dry-run=server")
        assert "created (dry run)" in space("apply", "-f", str(space.manifest), "--dry-run=client")
        assert space("get", "modelyard", "-o", "name") == ""
        space.apply()
        assert "deleted (server dry run)" in space("delete", "msvc", "iris", "--dry-run=server")
        assert "scaled" in space("scale", "msvc", "iris", "--replicas=9", "--dry-run=server")
        assert space("get", "msvc", "iris", "-o", "jsonpath={.spec.replicas}") == "1"

    def test_a_misspelled_field_is_refused_by_name(self, space: Space) -> None:
        text = MANIFEST.replace("replicas:", "replica:")
        assert 'unknown field "spec.replica"' in space.fails("apply", "-f", "-", stdin=text)
        shown = space.run("apply", "--validate=warn", "-f", "-", stdin=text)
        assert 'Warning: unknown field "spec.replica"' in shown.err

    def test_every_violated_rule_is_printed(self, space: Space) -> None:
        text = MANIFEST.replace("replicas: 1", "replicas: -1").replace("{name: iris-v1}", "{name: a, uri: b}")
        shown = space.fails("apply", "-f", "-", stdin=text)
        assert "spec.replicas" in shown
        assert "set exactly one of name and uri" in shown

    def test_an_edit_with_an_old_version_is_refused(self, space: Space) -> None:
        space.apply()
        old = space("get", "msvc", "iris", "-o", "yaml")
        space("label", "msvc", "iris", "a=b")
        assert "the object has been modified" in space.fails("replace", "-f", "-", stdin=old)

    def test_secrets_and_config_maps_are_created_and_applied_again(self, space: Space) -> None:
        assert "created" in space("create", "secret", "generic", "s", "--from-literal=key=value")
        assert "created" in space("create", "configmap", "c", "--from-literal=a=1", "--from-literal=b=2")
        assert space("get", "secret", "s", "-o", "jsonpath={.data.key} {.type}") == "dmFsdWU= Opaque"
        text = "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\nstringData: {a: x, b: w}\n"
        space("apply", "-f", "-", stdin=text)
        assert "configured" in space("apply", "-f", "-", stdin=text.replace("a: x, b: w", "a: z"))
        assert space("get", "secret", "t", "-o", "jsonpath={.data.a}") == "eg=="
        text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {a: '1', b: '2'}\n"
        space("apply", "-f", "-", stdin=text)
        space("apply", "-f", "-", stdin=text.replace("b: '2'", "c: '3'"))
        assert json.loads(space("get", "cm", "d", "-o", "jsonpath={.data}")) == {"a": "1", "c": "3"}
        assert space("get", "cm", "c", "--no-headers").split()[1] == "2"

    def test_deleting_a_namespace_deletes_what_is_in_it(self, kubectl: Kubectl) -> None:
        name = f"short-{uuid.uuid4().hex[:10]}"
        kubectl("create", "namespace", name)
        kubectl("-n", name, "create", "configmap", "c")
        kubectl("delete", "namespace", name, "--timeout=50s")
        assert "not found" in kubectl.run("get", "namespace", name, code=1).err
        refused = kubectl.run("-n", name, "create", "configmap", "c", code=1).err
        assert f'namespaces "{name}" not found' in refused
        assert "may not be deleted" in kubectl.run("delete", "namespace", "default", code=1).err

    def test_children_are_collected_or_kept_as_asked(self, space: Space) -> None:
        space.apply()

        def child(name: str) -> None:
            owner = json.loads(space("get", "msvc", "iris", "-o", "json"))
            reference = {key: owner[key] for key in ("apiVersion", "kind")} | {
                key: owner["metadata"][key] for key in ("name", "uid")
            }
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": name,
                    "labels": {"of": "test"},
                    "ownerReferences": [{**reference, "blockOwnerDeletion": True}],
                },
            }
            space("create", "-f", "-", stdin=json.dumps(body))

        child("kept")
        space("delete", "msvc", "iris", "--cascade=orphan")
        space.apply()
        child("taken")
        space("delete", "msvc", "iris", "--cascade=foreground")
        until(lambda: space("get", "cm", "-l", "of=test", "-o", "name").split() == ["configmap/kept"])
