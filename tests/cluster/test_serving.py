"""Services on a real cluster: applied, called by ServiceAccounts, and never failing while things go wrong."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from cluster_serving_testing import may_call, model, models, secret, service, token
from cluster_testing import HOST, Cluster, Namespace
from cluster_testing import namespace as fresh
from installation_testing import SYSTEM, Installation
from kubectl_testing import until
from modelyard.control.plan.certificates import OVERLAP_SECONDS
from modelyard.server import certificates
from modelyard.server.system_secrets import AUTHORITIES, GATEWAY
from s3_testing import S3
from yard_testing import Load, call

CALLS = 40
"""Before, while and after something goes wrong."""


@dataclass(frozen=True)
class Shop:
    """A service of two replicas that adds 1, and a token of who may call it."""

    installed: Installation
    namespace: Namespace
    s3: S3
    token: str

    @property
    def name(self) -> str:
        return f"plus.{self.namespace.name}"

    def load(self) -> Load:
        """Calls by four callers, together about 40 a second."""
        return Load(self.installed.url, self.name, token=self.token, pause=0.1)

    def pods(self) -> list[str]:
        """Names of the service's pods that are not going."""
        found = self.namespace.all("pods", "-l", "modelyard.dev/service=plus")
        return [each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]]

    def ready(self, seconds: float = 90.0) -> None:
        self.namespace("wait", "modelservice/plus", "--for=condition=Ready", f"--timeout={seconds:g}s")


@pytest.fixture(scope="module")
def shop(installed: Installation, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with models(tmp_path_factory.mktemp("models"), HOST) as s3, fresh(cluster) as namespace:
        namespace.apply(
            secret("lake", s3.credentials()),
            *(model(f"plus-{n}", f"s3://models/plus-{n}.onnx") for n in (1, 2)),
            service("plus", "plus-1", replicas=2),
        )
        found = Shop(installed, namespace, s3, may_call(namespace, "app", "plus"))
        try:
            found.ready()
            until(lambda: call(installed.url, found.name, found.token) == 200, 30)
        except BaseException:
            print(namespace.told(), installed.told())
            raise
        yield found


def test_an_account_calls_what_its_roles_allow_and_nobody_else_does(shop: Shop) -> None:
    url, stranger = shop.installed.url, "stranger"
    assert call(url, shop.name, shop.token) == 200
    assert call(url, shop.name) == 401
    shop.namespace("create", "serviceaccount", stranger)
    assert call(url, shop.name, token(shop.namespace, stranger)) == 403
    assert call(url, shop.name, token(shop.namespace, "app", "https://kubernetes.default.svc")) == 401
    assert call(url, "missing", shop.token) == 403


def test_who_may_call_changes_at_once(shop: Shop) -> None:
    url, late = shop.installed.url, may_call(shop.namespace, "late", "plus")
    until(lambda: call(url, shop.name, late) == 200, 10)
    shop.namespace("delete", "rolebinding", "late")
    until(lambda: call(url, shop.name, late) == 403, 10)


def test_replicas_answer_the_gateway_alone(shop: Shop) -> None:
    (pod, *_) = shop.namespace.all("pods", "-l", "modelyard.dev/service=plus")
    address = f"http://{pod['status']['podIP']}:8080"
    assert call(address, shop.name, shop.token) in (401, 403)


def test_nothing_fails_when_a_pod_is_deleted(shop: Shop) -> None:
    with shop.load() as load:
        load.more(CALLS)
        (gone, _) = before = shop.pods()
        shop.namespace("delete", "pod", gone, "--wait=false")
        until(partial(replaced, shop, gone), 60)
        shop.ready()
        load.more(CALLS)
    assert len(before) == 2
    assert load.failures == []


def test_nothing_fails_when_every_pod_is_evicted_in_turn(shop: Shop) -> None:
    with shop.load() as load:
        for pod in shop.pods():
            until(partial(evicted, shop, pod), 90)
            until(partial(replaced, shop, pod), 60)
            load.more(CALLS)
        shop.ready()
    assert load.failures == []


def replaced(shop: Shop, pod: str) -> bool:
    found = shop.pods()
    return len(found) == 2 and pod not in found


def evicted(shop: Shop, pod: str) -> bool:
    """Whether the Eviction API lets it go now; a budget may not."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": shop.namespace.name}}
    path = f"/api/v1/namespaces/{shop.namespace.name}/pods/{pod}/eviction"
    return shop.namespace.run("create", "--raw", path, "-f", "-", stdin=json.dumps(body), code=None).code == 0


def kill_pods(shop: Shop, names: list[str]) -> None:
    """As a node that fails: without notice."""
    shop.installed.kubectl("-n", SYSTEM, "delete", "pod", *names, "--grace-period=0", "--force", "--wait=false")


def kill_leader(shop: Shop) -> None:
    (before,) = leaders(shop)
    kill_pods(shop, [before])
    until(lambda: leaders(shop) - {before}, 60)


def kill_operators(shop: Shop) -> None:
    before = {each["metadata"]["name"] for each in shop.installed.pods("operator")}
    kill_pods(shop, sorted(before))
    until(lambda: leaders(shop) - before, 90)


def leaders(shop: Shop) -> set[str]:
    """Names of the operator's pods that are labelled as leading, and are not going; one but for moments."""
    found: list[dict[str, Any]] = [each["metadata"] for each in shop.installed.pods("operator")]
    return {
        each["name"]
        for each in found
        if each["labels"].get("modelyard.dev/leader") == "true" and "deletionTimestamp" not in each
    }


def delete_gateway_pod(shop: Shop) -> None:
    (gone, *_) = (each["metadata"]["name"] for each in shop.installed.pods("gateway"))
    shop.installed.kubectl("-n", SYSTEM, "delete", "pod", gone, "--wait=false")
    shop.installed.kubectl("-n", SYSTEM, "rollout", "status", "deployment/modelyard-gateway", "--timeout=50s")


def replace_all_of_ours(shop: Shop) -> None:
    """What an upgrade does to operators and gateways."""
    deployments = ("deployment/modelyard-operator", "deployment/modelyard-gateway")
    shop.installed.kubectl("-n", SYSTEM, "rollout", "restart", *deployments)
    for each in deployments:
        until(partial(rolled_out, shop, each), 120)


def rolled_out(shop: Shop, deployment: str) -> bool:
    done = shop.installed.kubectl.run("-n", SYSTEM, "rollout", "status", deployment, "--timeout=20s", code=None)
    return done.code == 0


def restart_api_server(shop: Shop) -> None:
    node = shop.installed.cluster.node
    node.kill("kube-apiserver")
    time.sleep(2)  # as long as it is away
    node.start("kube-apiserver")


def rotate_certificates(shop: Shop) -> None:
    """Another authority signs, the former one is forgotten, and who leads then knows the new one alone.

    The days between the steps are left out, so each waits here until the kubelet has brought it to the gateways.
    """
    before = started(shop)
    authorities = certificates.read(stored(shop, AUTHORITIES))
    signs_at = time.time() + 16.0
    coming = certificates.advanced(certificates.Kept(), signs_at - OVERLAP_SECONDS + 3600.0).current
    assert coming is not None
    store(shop, AUTHORITIES, certificates.data(replace(authorities, next=coming)))
    until(lambda: coming.certificate.strip() in taken_up(shop, "ca.crt"), 15)
    until(lambda: stored(shop, AUTHORITIES)["ca.crt"] == coming.certificate, 30)
    assert time.time() >= signs_at - 1.0  # certificates know whole seconds
    until(lambda: signed(stored(shop, GATEWAY)["tls.crt"], coming.certificate), 20)
    until(lambda: taken_up(shop, "tls.crt") == stored(shop, GATEWAY)["tls.crt"], 20)
    store(shop, AUTHORITIES, {**stored(shop, AUTHORITIES), "switched": b"1"})
    until(lambda: taken_up(shop, "ca.crt") == coming.certificate, 20)
    (leader,) = leaders(shop)
    shop.installed.kubectl("-n", SYSTEM, "delete", "pod", leader, "--wait=false")
    until(lambda: leaders(shop) - {leader}, 60)
    assert started(shop) == before


def signed(certificate: bytes, authority: bytes) -> bool:
    life = certificates.life(certificate, [authority])
    return life is not None and life.issuer != ""


def started(shop: Shop) -> set[tuple[str, int]]:
    """The containers of gateways, and how often each was started."""
    found = gateways(shop)
    return {(each["metadata"]["uid"], each["status"]["containerStatuses"][0]["restartCount"]) for each in found}


def gateways(shop: Shop) -> list[Any]:
    """Pods of gateways that stay."""
    return [each for each in shop.installed.pods("gateway") if "deletionTimestamp" not in each["metadata"]]


def stored(shop: Shop, secret_name: str) -> dict[str, bytes]:
    data = shop.installed.find("secret", secret_name)["data"]
    return {key: base64.b64decode(value) for key, value in data.items()}


def store(shop: Shop, secret_name: str, data: dict[str, bytes]) -> None:
    body = {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}
    patch = ("patch", "secret", secret_name, "--type=merge", "--patch-file=/dev/stdin")
    shop.installed.kubectl("-n", SYSTEM, *patch, stdin=json.dumps(body))


def taken_up(shop: Shop, file: str) -> bytes:
    """What all gateways have in a file of certificates; b"" while they differ. A changed pod is looked after."""
    pods = gateways(shop)
    names = [each["metadata"]["name"] for each in pods]
    shop.installed.kubectl("-n", SYSTEM, "annotate", "--overwrite", "pod", *names, f"looked={time.time():.1f}")
    folder = "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~secret/tls/"
    paths = [folder.format(each["metadata"]["uid"]) + file for each in pods]
    found = {shop.installed.cluster.node.exec("cat", path).encode() for path in paths}
    return found.pop() if len(found) == 1 else b""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "happening",
    [kill_leader, kill_operators, delete_gateway_pod, replace_all_of_ours, rotate_certificates, restart_api_server],
    ids=lambda each: each.__name__,
)
def test_nothing_fails_and_changes_arrive_afterwards(shop: Shop, happening: Callable[[Shop], None]) -> None:
    with shop.load() as load:
        load.more(CALLS)
        happening(shop)
        load.more(CALLS)
        account = happening.__name__.replace("_", "-")
        late = may_call(shop.namespace, account, "plus")
        until(lambda: call(shop.installed.url, shop.name, late) == 200, 90)
    assert load.failures == []
    shop.ready()


@pytest.mark.timeout(400)
def test_nothing_fails_while_another_model_takes_over(shop: Shop) -> None:
    with shop.load() as load:
        load.more(CALLS)
        assert load.answers == {1.0}
        shop.namespace.apply(service("plus", "plus-2", replicas=2))
        until(lambda: 2.0 in load.answers, 90)
        shop.ready()
        load.answers.clear()
        load.more(CALLS)
        assert load.answers == {2.0}
    assert load.failures == []
