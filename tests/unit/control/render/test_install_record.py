"""What an installation remembers of itself."""

from dataclasses import replace

import pytest

import modelyard
from modelyard.control.render import install_record
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import Options
from modelyard.control.render.install_record import Record

PLAIN = Options(version="7")
OTHER = replace(
    PLAIN,
    image_prefix="registry.example.com/ml/",
    pull_secrets=("a", "b"),
    network_policies=False,
    gateway_resources={"requests": {}, "limits": {"memory": "2Gi"}},
)


def test_only_what_differs_from_the_defaults_is_remembered_as_it_would_be_said() -> None:
    assert install_record.read(install_record.record(PLAIN)) == Record(modelyard.__version__, "7", ())
    found = install_record.read(install_record.record(OTHER))
    assert found.arguments == (
        "--image-prefix=registry.example.com/ml/",
        "--pull-secret=a",
        "--pull-secret=b",
        "--gateway-memory=2Gi",
        "--no-network-policies",
    )


def test_a_record_that_somebody_has_emptied_says_nothing() -> None:
    assert install_record.read({"metadata": {}}) == Record("", "", ())
    assert install_record.read({"data": {"options": " --a=1 \n\n"}}).arguments == ("--a=1",)


def test_changes_are_named_with_both_values() -> None:
    assert install_record.changes(OTHER, OTHER) == []
    assert install_record.changes(PLAIN, replace(OTHER, version="8", image_prefix=PLAIN.image_prefix)) == [
        "image-tag: 7 -> 8",
        "pull-secret: none -> a, b",
        "gateway-memory: 1Gi -> 2Gi",
        "network-policies: yes -> no",
    ]


def test_helm_remembers_its_values_itself() -> None:
    def names(options: Options) -> set[str]:
        return {each["metadata"]["name"] for each in manifests(options, ())}

    assert names(PLAIN) - names(replace(PLAIN, managed_by="Helm")) == {install_record.RECORD}


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [("0.1.0", "0.2.0", True), ("0.9.0", "0.10.0", True), ("1.0.0", "1.0.0", False), ("1.0.0", "0.9.9", False)],
)
def test_versions_are_compared_by_their_numbers(version: str, than: str, older: bool) -> None:
    assert install_record.is_older(version, than=than) is older
