from pathlib import Path

import pytest

from modelyard import __version__
from modelyard.base.errors import UserError
from modelyard.server import operator_options
from modelyard.server.operator_options import Options, parse, split


def test_a_pod_says_all_by_its_environment() -> None:
    found = parse(
        [],
        {
            "POD_NAME": "op-1",
            "POD_NAMESPACE": "modelyard-system",
            "POD_IP": "10.0.0.1",
            "MODELYARD_IMAGE_PREFIX": "registry.example/modelyard-",
            "MODELYARD_IMAGE_PULL_POLICY": "Never",
            "MODELYARD_IMAGE_PULL_SECRETS": "one, two,",
            "MODELYARD_VERSION": "9.9",
            "MODELYARD_GATEWAY_URL": "http://gateway.example/",
            "MODELYARD_DATA": "/data",
        },
    )
    assert (found.pod, found.xds, found.http) == ("op-1", "0.0.0.0:18000", "0.0.0.0:8080")
    assert (found.gateway, found.data) == ("gateway.example", Path("/data"))
    assert found.pods.image("runtime") == {
        "image": "registry.example/modelyard-runtime:9.9",
        "imagePullPolicy": "Never",
    }
    assert found.pods.pull_secrets == ("one", "two")


def test_without_an_environment_there_are_defaults() -> None:
    found = parse([], {})
    assert found == Options(pods=found.pods)
    assert (found.pods.version, found.pods.pull_policy, found.pods.pull_secrets) == (__version__, "IfNotPresent", ())


def test_a_pod_with_ipv6_listens_there() -> None:
    found = parse([], {"POD_IP": "fd00::1"})
    assert (found.xds, split(found.http)) == ("[::]:18000", ("::", 8080))


def test_options_are_for_machines_outside() -> None:
    given = ["--kubeconfig", "k", "--context", "c", "--xds", "127.0.0.1:0", "--http", "[::1]:0", "--data", "d"]
    found = parse(given, {"POD_IP": "10.0.0.1"})
    assert (found.kubeconfig, found.context, found.xds, found.http) == (Path("k"), "c", "127.0.0.1:0", "[::1]:0")
    assert found.data == Path("d")


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (["--http", "8080"], {}, "--http: expected HOST:PORT"),
        (["--xds", "a:port"], {}, "--xds: expected HOST:PORT"),
        (["--xds", "a:99999"], {}, "--xds: expected HOST:PORT"),
        ([], {"MODELYARD_IMAGE_PULL_POLICY": "Sometimes"}, "MODELYARD_IMAGE_PULL_POLICY must be one of IfNotPresent"),
        ([], {"POD_NAMESPACE": "default"}, "POD_NAMESPACE: the operator runs in namespace modelyard-system, not in"),
    ],
)
def test_what_cannot_be_used_is_named(arguments: list[str], environ: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(arguments, environ)


def test_no_pod_and_no_kubeconfig_is_told() -> None:
    with pytest.raises(UserError, match="this is no pod of a cluster; give a kubeconfig"):
        parse([], {}).client({})


def test_a_process_that_was_started_anew_is_another_one() -> None:
    options = Options(pod="op-1")
    one, two = operator_options.identity(options), operator_options.identity(options)
    assert one.startswith("op-1_")
    assert one != two
