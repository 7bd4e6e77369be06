"""What goes wrong with pods is told with its real cause."""

import json

import pytest

from cluster_driver_testing import MIB, SETTINGS, SMALL, driving, fetched_model
from cluster_testing import Namespace
from modelyard.base.conditions import Reason
from modelyard.control.ir.actions import Resize, Run, Start, Stop
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.ir.pod import Pod
from modelyard.control.ir.unit import Credential, Resources, SecretKey, Variable
from modelyard.control.render.kube_pod import PodSettings

pytestmark = pytest.mark.usefixtures("stand_in")


async def test_an_image_that_cannot_be_had(namespace: Namespace) -> None:
    settings = PodSettings(image_prefix="localhost/nothing-", pull_policy="IfNotPresent")
    async with driving(namespace, settings) as rig:
        iris = rig.unit()
        await rig.apply(Start(unit=iris, replicas=1))
        trouble = await rig.trouble(iris.name, Reason.IMAGE_PULL_FAILED)
        assert "localhost/nothing-runtime:0.1.0" in trouble.message
        (member,) = rig.members(iris.name)
        assert member.state is ReplicaState.PENDING


async def test_a_pod_for_which_there_is_no_machine(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(resources=Resources(memory_request_bytes=2**42))
        await rig.apply(Start(unit=iris, replicas=1))
        assert "Insufficient memory" in (await rig.trouble(iris.name, Reason.UNSCHEDULABLE)).message


async def test_a_selector_that_no_machine_has(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(pod=Pod(overlay={"spec": {"nodeSelector": {"disk": "gold"}}}))
        await rig.apply(Start(unit=iris, replicas=1))
        assert "selector" in (await rig.trouble(iris.name, Reason.UNSCHEDULABLE)).message


async def test_more_memory_than_the_limit(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        limited = Resources(memory_request_bytes=16 * MIB, memory_limit_bytes=64 * MIB)
        iris = rig.unit(lever="hungry=200", resources=limited)
        await rig.apply(Start(unit=iris, replicas=1))
        trouble = await rig.trouble(iris.name, Reason.OUT_OF_MEMORY)
        assert trouble.message == "used more than its memory limit of 64.0 MiB and was killed"
        assert rig.members(iris.name)[0].restarts >= 0


async def test_a_crash_is_told_with_the_last_lines(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(lever="say=fall exit=7")
        await rig.apply(Start(unit=iris, replicas=1))
        trouble = await rig.trouble(iris.name, Reason.CRASHED)
        assert trouble.message == "ended with exit status 7; its log ends with:\nabout to fall"


async def test_a_failure_that_a_process_reports(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(lever="failure=WarmupFailed")
        await rig.apply(Start(unit=iris, replicas=1))
        assert (await rig.trouble(iris.name, Reason.WARMUP_FAILED)).message == "the file ends after 12 bytes"


async def test_an_artifact_that_cannot_be_fetched(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(lever="unfetched=ArtifactChanged", work=fetched_model())
        await rig.apply(Start(unit=iris, replicas=1))
        assert (await rig.trouble(iris.name, Reason.ARTIFACT_CHANGED)).message == "the store has another artifact"


async def test_a_start_that_takes_too_long(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(lever="unready", startup_timeout_seconds=4.0)
        await rig.apply(Start(unit=iris, replicas=1))
        trouble = await rig.trouble(iris.name, Reason.STARTUP_TIMEOUT)
        assert trouble.message.startswith("was not ready within 4 s and was ended")


async def test_a_secret_that_a_variable_needs(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        token = Variable(name="TOKEN", secret=SecretKey(secret="store", key="token"))
        iris = rig.unit(variables=(token,))
        await rig.apply(Start(unit=iris, replicas=1))
        assert 'secret "store" not found' in (await rig.trouble(iris.name, Reason.SECRET_NOT_FOUND)).message
        namespace("create", "secret", "generic", "store", "--from-literal=token=x")
        (member,) = await rig.ready(iris.name)
        assert (await rig.get(member.address, "/environment"))["TOKEN"] == "x"


async def test_a_secret_with_credentials(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(credentials=(Credential(role="output", secret="keys"),))
        await rig.apply(Start(unit=iris, replicas=1))
        assert 'secret "keys" not found' in (await rig.trouble(iris.name, Reason.SECRET_NOT_FOUND)).message


async def test_a_quota_that_is_used_up(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        namespace("create", "quota", "small", "--hard=requests.memory=40Mi")
        iris = rig.unit()
        await rig.apply(Start(unit=iris, replicas=2))
        await rig.ready(iris.name, 2)
        await rig.apply(Resize(unit=iris.name, owner=iris.owner, replicas=3))
        trouble = await rig.trouble(iris.name, Reason.QUOTA_EXCEEDED)
        assert "exceeded quota: small" in trouble.message
        assert [each.state for each in rig.members(iris.name)].count(ReplicaState.READY) == 2
        await rig.apply(Resize(unit=iris.name, owner=iris.owner, replicas=2))
        await rig.ready(iris.name, 2)


async def test_a_task_beyond_the_quota(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        namespace("create", "quota", "small", "--hard=requests.memory=1Mi")
        prepare = rig.task()
        await rig.apply(Run(task=prepare))
        assert "exceeded quota: small" in (await rig.trouble(prepare.name, Reason.QUOTA_EXCEEDED)).message


async def test_what_admission_refuses(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(pod=Pod(service_account="nobody"))
        await rig.apply(Start(unit=iris, replicas=1))
        trouble = await rig.trouble(iris.name, Reason.POD_REFUSED)
        assert 'serviceaccount "nobody" not found' in trouble.message


async def test_a_template_that_the_api_server_refuses(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        iris = rig.unit(pod=Pod(overlay={"spec": {"tolerations": [{"operator": "Perhaps"}]}}))
        await rig.apply(Start(unit=iris, replicas=1))
        assert "tolerations" in (await rig.trouble(iris.name, Reason.POD_REFUSED)).message
        await rig.apply(Stop(unit=iris.name, owner=iris.owner))
        assert rig.found(iris.name) is None


async def test_pods_pass_the_restricted_profile_with_all_that_we_add(namespace: Namespace) -> None:
    async with driving(namespace, SETTINGS) as rig:
        namespace("create", "secret", "generic", "keys", "--from-literal=key=value")
        credentials = (Credential(role="model", secret="keys"), Credential(role="output", secret="keys"))
        iris = rig.unit(work=fetched_model(), credentials=credentials, resources=SMALL)
        await rig.apply(Start(unit=iris, replicas=1))
        (member,) = await rig.ready(iris.name)
        environment = await rig.get(member.address, "/environment")
        assert environment["MODELYARD_SECRETS"] == "/run/secrets/modelyard"
        pod = namespace.find("pod", member.name)
        mounts = {each["mountPath"] for each in pod["spec"]["containers"][0]["volumeMounts"]}
        assert "/run/secrets/modelyard/output" in mounts
        assert "/run/secrets/modelyard/model" not in mounts
        assert "token" not in json.dumps(pod["spec"]["volumes"])
