"""Which overlays are let through: a table of fields, and an oracle for what comes of merging those that are."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.control.ir.unit import Credential, Unit
from modelyard.control.ir.values import Key
from modelyard.control.plan.pod_template import faults, worker_faults
from modelyard.control.render.kube_pod import PodSettings, template
from modelyard.control.render.overlay import merge
from modelyard.wire.work import ModelWork, ServeWork, WorkSpec

Object = dict[str, Any]
_SECURE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_SIDECAR = {"name": "logs", "image": "logs:1", "securityContext": _SECURE}


def spec(**fields: Any) -> Object:
    return {"spec": fields}


def sidecar(**fields: Any) -> Object:
    return spec(containers=[{**_SIDECAR, **fields}])


def main(**fields: Any) -> Object:
    return spec(containers=[{"name": "main", **fields}])


def paths(template: Object) -> list[str]:
    return [each.path.removeprefix("spec.podTemplate.") for each in faults(template)]


ALLOWED = {
    "nothing": {},
    "labels": {"metadata": {"labels": {"team": "risk", "app.kubernetes.io/part-of": "fraud"}}},
    "annotations": {"metadata": {"annotations": {"sidecar.istio.io/inject": "false"}}},
    "node selector": spec(nodeSelector={"disk": "ssd"}),
    "tolerations": spec(tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]),
    "affinity": spec(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
    "spread": spec(topologySpreadConstraints=[{"topologyKey": "zone", "maxSkew": 1}]),
    "classes": spec(priorityClassName="high", runtimeClassName="kata", schedulerName="volcano"),
    "pull secrets": spec(imagePullSecrets=[{"name": "ghcr"}]),
    "claims of devices": spec(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "small"}]),
    "a stricter context": spec(securityContext={"runAsUser": 1000, "runAsNonRoot": True, "supplementalGroups": [5]}),
    "a cache that stays": spec(volumes=[{"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}]),
    "a volume in main": {
        "spec": {
            "volumes": [{"name": "words", "configMap": {"name": "words"}}],
            "containers": [{"name": "main", "volumeMounts": [{"name": "words", "mountPath": "/words"}]}],
        }
    },
    "shared memory": {
        "spec": {
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": "main", "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}],
        }
    },
    "a sidecar": sidecar(ports=[{"containerPort": 9100}], args=["-v", ""]),
    "a container before": spec(initContainers=[{**_SIDECAR, "restartPolicy": "Always"}]),
    "what is so anyway": spec(hostNetwork=False, automountServiceAccountToken=False, hostUsers=False),
}
REFUSED = {
    "host network": (spec(hostNetwork=True), ["spec.hostNetwork"]),
    "host processes": (spec(hostPID=True, hostIPC=True), ["spec.hostPID", "spec.hostIPC"]),
    "one namespace of processes": (spec(shareProcessNamespace=True), ["spec.shareProcessNamespace"]),
    "a host path": (spec(volumes=[{"name": "a", "hostPath": {"path": "/"}}]), ["spec.volumes[0].hostPath"]),
    "nfs": (spec(volumes=[{"name": "a", "nfs": {"server": "x", "path": "/"}}]), ["spec.volumes[0].nfs"]),
    "no kind of volume": (spec(volumes=[{"name": "a"}]), ["spec.volumes[0]"]),
    "two kinds": (spec(volumes=[{"name": "a", "emptyDir": {}, "secret": {}}]), ["spec.volumes[0]"]),
    "a token": (
        spec(volumes=[{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
        ["spec.volumes[0].projected.sources[0].serviceAccountToken"],
    ),
    "the account's token": (spec(automountServiceAccountToken=True), ["spec.automountServiceAccountToken"]),
    "an account": (spec(serviceAccountName="admin"), ["spec.serviceAccountName"]),
    "a node": (spec(nodeName="n1"), ["spec.nodeName"]),
    "sysctls": (spec(securityContext={"sysctls": []}), ["spec.securityContext.sysctls"]),
    "root": (
        spec(securityContext={"runAsUser": 0, "runAsNonRoot": False}),
        ["spec.securityContext.runAsUser", "spec.securityContext.runAsNonRoot"],
    ),
    "no seccomp": (
        spec(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        ["spec.securityContext.seccompProfile.type"],
    ),
    "an SELinux type": (
        spec(securityContext={"seLinuxOptions": {"type": "spc_t", "user": "u"}}),
        ["spec.securityContext.seLinuxOptions.type", "spec.securityContext.seLinuxOptions.user"],
    ),
    "our image": (main(image="mine"), ["spec.containers[0].image"]),
    "our command": (main(command=["sh"], args=[]), ["spec.containers[0].command", "spec.containers[0].args"]),
    "our ports and probes": (
        main(ports=[], readinessProbe={}),
        ["spec.containers[0].ports", "spec.containers[0].readinessProbe"],
    ),
    "variables": (main(env=[]), ["spec.containers[0].env"]),
    "capabilities": (
        main(securityContext={"capabilities": {"add": ["NET_RAW"], "drop": []}}),
        ["spec.containers[0].securityContext.capabilities.add", "spec.containers[0].securityContext.capabilities.drop"],
    ),
    "a writable root": (
        main(securityContext={"readOnlyRootFilesystem": False}),
        ["spec.containers[0].securityContext.readOnlyRootFilesystem"],
    ),
    "a mount over ours": (
        spec(
            volumes=[{"name": "a", "emptyDir": {}}],
            containers=[{"name": "main", "volumeMounts": [{"name": "a", "mountPath": "/var/../run/secrets"}]}],
        ),
        ["spec.containers[0].volumeMounts[0].mountPath"],
    ),
    "a mount of everything": (
        spec(
            volumes=[{"name": "a", "emptyDir": {}}],
            containers=[{"name": "main", "volumeMounts": [{"name": "a", "mountPath": "/"}]}],
        ),
        ["spec.containers[0].volumeMounts[0].mountPath"],
    ),
    "our keys in a sidecar": (
        sidecar(volumeMounts=[{"name": "secrets-input", "mountPath": "/keys"}]),
        ["spec.containers[0].volumeMounts[0].name"],
    ),
    "our scratch in a sidecar": (
        sidecar(volumeMounts=[{"name": "cache", "mountPath": "/c"}]),
        ["spec.containers[0].volumeMounts[0].name"],
    ),
    "a mount of nothing": (
        sidecar(volumeMounts=[{"name": "lost", "mountPath": "/c"}]),
        ["spec.containers[0].volumeMounts[0].name"],
    ),
    "our volumes": (spec(volumes=[{"name": "work", "emptyDir": {}}]), ["spec.volumes[0].name"]),
    "a cache of another kind": (spec(volumes=[{"name": "cache", "secret": {}}]), ["spec.volumes[0]"]),
    "a container of ours": (
        spec(initContainers=[{**_SIDECAR, "name": "fetch"}]),
        ["spec.initContainers[0].name"],
    ),
    "main before main": (spec(initContainers=[{**_SIDECAR, "name": "main"}]), ["spec.initContainers[0].name"]),
    "a sidecar that says nothing": (
        spec(containers=[{"name": "logs", "image": "logs"}]),
        [
            "spec.containers[0].securityContext.allowPrivilegeEscalation",
            "spec.containers[0].securityContext.capabilities.drop",
        ],
    ),
    "a privileged sidecar": (
        sidecar(securityContext={**_SECURE, "privileged": True}),
        ["spec.containers[0].securityContext.privileged"],
    ),
    "a port of the host": (
        sidecar(ports=[{"containerPort": 1, "hostPort": 1}]),
        ["spec.containers[0].ports[0].hostPort"],
    ),
    "a probe of another host": (
        sidecar(livenessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}}),
        ["spec.containers[0].livenessProbe.httpGet.host"],
    ),
    "a name twice": (spec(containers=[_SIDECAR, _SIDECAR]), ["spec.containers[1].name"]),
    "our labels": (
        {"metadata": {"labels": {"modelyard.dev/unit": "x"}}},
        ["metadata.labels['modelyard.dev/unit']"],
    ),
    "the old way out of a profile": (
        {"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}}},
        ["metadata.annotations['container.apparmor.security.beta.kubernetes.io/main']"],
    ),
    "a field of tomorrow": (spec(hostEverything=True), ["spec.hostEverything"]),
    "a directive": (spec(affinity={"$patch": "delete"}), ["spec.affinity['$patch']"]),
    "nulls": (spec(securityContext=None, affinity={"a": None}), ["spec.securityContext", "spec.affinity.a"]),
    "wrong types": (
        spec(
            nodeSelector="ssd", tolerations={}, volumes=[3], containers="x", runtimeClassName=1, imagePullSecrets=[{}]
        ),
        [
            *("spec.nodeSelector", "spec.tolerations", "spec.volumes[0]", "spec.containers", "spec.runtimeClassName"),
            "spec.imagePullSecrets[0].name",
        ],
    ),
    "true for 1": (spec(securityContext={"runAsUser": True}), ["spec.securityContext.runAsUser"]),
    "1 for true": (spec(hostUsers=0), ["spec.hostUsers"]),
}


@pytest.mark.parametrize("overlay", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_restricts_no_less_is_allowed(overlay: Object) -> None:
    assert paths(overlay) == []


@pytest.mark.parametrize(("overlay", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_each_field_that_is_refused_is_named(overlay: Object, expected: list[str]) -> None:
    assert paths(overlay) == expected


def test_a_program_of_its_own_image_gets_volumes_too() -> None:
    mount = {"name": "data", "mountPath": "/data"}
    with_volume = spec(
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        initContainers=[{"name": "program", "volumeMounts": [mount]}],
    )
    assert faults(with_volume, program=True) == ()
    assert paths(with_volume) == ["spec.initContainers[0].name"]
    replaced = spec(initContainers=[{"name": "program", "image": "other"}])
    assert [each.path for each in faults(replaced, program=True)] == ["spec.podTemplate.spec.initContainers[0].image"]


def test_a_worker_of_its_own_image_gets_volumes_too() -> None:
    mount = {"name": "data", "mountPath": "/data"}
    with_volume = spec(
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        initContainers=[{"name": "worker", "volumeMounts": [mount]}],
    )
    assert faults(with_volume) == worker_faults(with_volume, worker=True) == ()
    (fault,) = worker_faults(with_volume, worker=False)
    assert str(fault).startswith("spec.podTemplate.spec.initContainers[0].name: worker is there only where a Runtime's")
    assert paths(spec(containers=[{"name": "worker"}])) != []
    for field in ("image", "env", "restartPolicy"):
        assert paths(spec(initContainers=[{"name": "worker", field: "Always"}])) == [f"spec.initContainers[0].{field}"]


def test_an_overlay_that_is_too_large_or_too_deep_is_refused() -> None:
    deep: Object = {}
    for _ in range(2000):
        deep = {"x": deep}
    assert "nested deeper" in faults(spec(affinity=deep))[0].message
    assert "larger than 64 KiB" in faults({"metadata": {"annotations": {"a": "x" * 70_000}}})[0].message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "ALL", "main", "Unconfined", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "add", "type"]), inner),
    max_leaves=4,
)


def _any_of(**fields: Any) -> st.SearchStrategy[Object]:
    """Some of these fields, rarely with anything in them."""

    def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.integers(0, 19).flatmap(lambda drawn: value if drawn else _JSON)

    return st.fixed_dictionaries({}, optional={name: mostly(value) for name, value in fields.items()})


_PROFILE = st.sampled_from([{"type": "RuntimeDefault"}, {"type": "Unconfined"}, {"type": "Localhost"}, {}])
_CONTEXT = _any_of(
    runAsNonRoot=st.booleans(),
    runAsUser=st.integers(-1, 3),
    privileged=st.booleans(),
    allowPrivilegeEscalation=st.just(False) | st.booleans(),
    capabilities=st.sampled_from([{"drop": ["ALL"]}, {"drop": []}, {"add": ["X"], "drop": ["ALL"]}, {}]),
    seccompProfile=_PROFILE,
    appArmorProfile=_PROFILE,
    procMount=st.sampled_from(["Default", "Unmasked"]),
    sysctls=st.just([{"name": "kernel.x", "value": "1"}]),
    readOnlyRootFilesystem=st.booleans(),
)
_MOUNTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["mine", "cache", "secrets-source", "work"]),
            "mountPath": st.sampled_from(["/data", "/etc/modelyard", "/run", "/dev/shm", "/var/lib/modelyard/cache/"]),
        }
    ),
    max_size=2,
)
_CONTAINER = st.builds(
    lambda name, image, rest: {"name": name, **({"image": image} if image else {}), **rest},
    st.sampled_from(["main", "fetch", "logs", "logs", "more"]),
    st.sampled_from(["", "x"]),
    _any_of(
        securityContext=st.just(_SECURE) | _CONTEXT,
        volumeMounts=_MOUNTS,
        ports=st.sampled_from([[{"containerPort": 9}], [{"containerPort": 9, "hostPort": 9}]]),
        command=st.just(["sh"]),
        livenessProbe=st.sampled_from([{"httpGet": {"port": 1}}, {"tcpSocket": {"port": 1, "host": "x"}}]),
    ),
)
_VOLUME = st.builds(
    lambda name, kind: {"name": name, **kind},
    st.sampled_from(["mine", "mine", "cache", "work", "secrets-source", "host"]),
    st.sampled_from(
        [
            {"emptyDir": {}},
            {"persistentVolumeClaim": {"claimName": "x"}},
            {"hostPath": {"path": "/"}},
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"projected": {"sources": [{"secret": {"name": "x"}}]}},
            {"hostPath": None, "emptyDir": {}},
        ]
    ),
)
_OF_ITS_OWN = {"name": "mine", "emptyDir": {}}
_KEPT = {"name": "cache", "persistentVolumeClaim": {"claimName": "x"}}
_TAME = st.fixed_dictionaries(
    {
        "containers": st.sampled_from(
            [
                [_SIDECAR],
                [{"name": "main", "securityContext": {"runAsUser": 5, "capabilities": {"drop": ["ALL", "X"]}}}],
                [{"name": "main", "volumeMounts": [{"name": "mine", "mountPath": "/data"}]}, _SIDECAR],
                [{**_SIDECAR, "volumeMounts": [{"name": "mine", "mountPath": "/data"}]}],
            ]
        ),
        "volumes": st.sampled_from([[_OF_ITS_OWN], [_OF_ITS_OWN, _KEPT]]),
    },
    optional={
        "securityContext": st.just({"runAsUser": 7, "seccompProfile": {"type": "Localhost"}}) | _CONTEXT,
        "initContainers": st.just([{**_SIDECAR, "name": "before"}]) | st.lists(_CONTAINER, max_size=1),
    },
).map(lambda spec: {"spec": spec})
_WILD = st.fixed_dictionaries(
    {},
    optional={
        "metadata": _any_of(
            labels=st.dictionaries(
                st.sampled_from(["team", "modelyard.dev/unit", "app.kubernetes.io/managed-by"]), st.just("x")
            ),
            annotations=st.dictionaries(st.sampled_from(["a", "modelyard.dev/work"]), st.just("x")),
        ),
        "spec": _any_of(
            nodeSelector=st.just({"a": "b"}),
            hostNetwork=st.booleans(),
            hostPID=st.booleans(),
            shareProcessNamespace=st.booleans(),
            automountServiceAccountToken=st.booleans(),
            serviceAccountName=st.just("admin"),
            securityContext=_CONTEXT,
            containers=st.lists(_CONTAINER, max_size=2),
            initContainers=st.lists(_CONTAINER, max_size=2),
            volumes=st.lists(_VOLUME, max_size=2),
            runtimeClassName=st.just("kata"),
        ),
    },
)
_OVERLAY = _TAME | _WILD
_UNIT = Unit(
    name="iris-svc-00001.default",
    owner=Key(kind="ModelService", namespace="default", name="iris"),
    revision="iris-svc-00001",
    work=WorkSpec(serve=ServeWork(models=(ModelWork(name="iris", digest="d", format="onnx", uri="s3://b/i"),))),
    credentials=(Credential(role="model", secret="keys"), Credential(role="source", secret="more")),
)
_BASE = template(_UNIT, PodSettings())
_TYPES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}


def test_the_oracle_knows_what_is_not_restricted() -> None:
    assert list(broken(_BASE)) == []
    for overlay, _ in REFUSED.values():
        if set(overlay.get("spec", {})) & {"hostNetwork", "hostPID", "shareProcessNamespace"}:
            assert list(broken(merge(_BASE, overlay)))


@settings(max_examples=600)
@given(_OVERLAY)
@example({"spec": {"containers": [{"name": []}], "initContainers": [{"name": {}}]}})
def test_what_is_let_through_leaves_pods_restricted_and_ours(overlay: Object) -> None:
    """Merged as it is, without whatever else guards the template later."""
    if not faults(overlay):
        assert list(broken(merge(_BASE, overlay))) == []


def broken(pod: Object) -> list[str]:
    """What is not as the restricted profile demands, or no longer what was made. Written from the standard's tables."""
    spec, base = pod["spec"], _BASE["spec"]
    found = [each for each in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace") if spec.get(each)]
    found += [] if spec.get("automountServiceAccountToken") is False else ["token"]
    found += [] if spec.get("serviceAccountName") == base.get("serviceAccountName") else ["account"]
    context = spec.get("securityContext") or {}
    found += ["sysctls"] if context.get("sysctls") else []
    for volume in spec["volumes"]:
        kinds = set(volume) - {"name"}
        found += [] if len(kinds) == 1 and kinds <= _TYPES else [f"volume {volume}"]
        sources = (volume.get("projected") or {}).get("sources") or ()
        found += [f"token in {volume['name']}" for each in sources if "serviceAccountToken" in each]
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        found += [f"{container.get('name')}: {each}" for each in _unrestricted(container, context)]
    return [*found, *_replaced(pod)]


def _unrestricted(container: Object, pod: Object) -> list[str]:
    own = container.get("securityContext") or {}

    def effective(name: str) -> Any:
        return own[name] if own.get(name) is not None else pod.get(name)

    capabilities = own.get("capabilities") or {}
    probes = [container.get(f"{name}Probe") or {} for name in ("liveness", "readiness", "startup")]
    hosts = [probe.get(kind, {}).get("host") for probe in probes for kind in ("httpGet", "tcpSocket")]
    rules = {
        "privileged": not own.get("privileged"),
        "escalation": own.get("allowPrivilegeEscalation") is False,
        "drop": "ALL" in (capabilities.get("drop") or ()),
        "add": not capabilities.get("add"),
        "root": effective("runAsNonRoot") is True,
        "user": effective("runAsUser") != 0,
        "seccomp": (effective("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"),
        "apparmor": (effective("appArmorProfile") or {}).get("type", "RuntimeDefault") != "Unconfined",
        "proc": own.get("procMount", "Default") == "Default",
        "host ports": not any(port.get("hostPort") for port in container.get("ports") or ()),
        "hosts of probes": not any(hosts),
    }
    return [name for name, kept in rules.items() if not kept]


def _replaced(pod: Object) -> list[str]:
    found = []
    for field in ("labels", "annotations"):
        ours = _BASE["metadata"][field]
        found += [f"{field} {key}" for key in ours if pod["metadata"][field].get(key) != ours[key]]
    for kind in ("containers", "initContainers"):
        named = {each["name"]: each for each in pod["spec"].get(kind, ())}
        for ours in _BASE["spec"][kind]:
            now = named[ours["name"]]
            fields = set(ours) - {"volumeMounts", "securityContext"}
            found += [f"{ours['name']}.{field}" for field in fields if now.get(field) != ours[field]]
            found += [f"{ours['name']}: mount" for mount in ours["volumeMounts"] if mount not in now["volumeMounts"]]
            found += [] if now["securityContext"].get("readOnlyRootFilesystem") else [f"{ours['name']}: root"]
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    ours = [each for each in _BASE["spec"]["volumes"] if each["name"] != "cache"]
    return [*found, *(f"volume {each['name']}" for each in ours if volumes.get(each["name"]) != each)]
