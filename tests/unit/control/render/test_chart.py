"""The Helm chart, as far as it can be seen without helm; tests/cluster renders it with the real one."""

import json
import re
from dataclasses import replace

import yaml

from modelyard.api.schema import crds
from modelyard.control.render import chart, xds_bootstrap
from modelyard.control.render.install_options import Options

OPTIONS = Options(version="1.2.3")
FILES = chart.files(OPTIONS, crds())
EXPRESSION = re.compile(r"\{\{-? (.*?) \}\}")


def test_values_are_the_defaults_of_an_installation() -> None:
    values = yaml.safe_load(FILES["values.yaml"])
    assert values["image"] == {"prefix": OPTIONS.image_prefix, "tag": "", "pullPolicy": "IfNotPresent"}
    assert values["operator"] == {"replicas": 2, "resources": OPTIONS.operator_resources}
    assert values["gateway"]["resources"] == OPTIONS.gateway_resources
    assert values["networkPolicies"] == {"enabled": True}
    other = chart.files(replace(OPTIONS, gateway_replicas=7), crds())
    assert yaml.safe_load(other["values.yaml"])["gateway"]["replicas"] == 7


def test_every_value_that_is_declared_is_used_and_the_other_way_round() -> None:
    used = set()
    for path, text in FILES.items():
        if path.startswith("templates/"):
            used |= set(re.findall(r"\.Values\.([A-Za-z.]+)", text))
    properties = json.loads(FILES["values.schema.json"])["properties"]

    def leaves(part: object, at: str) -> set[str]:
        inner = part.get("properties") if isinstance(part, dict) else None
        if not inner or at.endswith("resources"):
            return {at}
        return {leaf for name, each in inner.items() for leaf in leaves(each, f"{at}.{name}" if at else name)}

    declared = {leaf for name, each in properties.items() for leaf in leaves(each, name)} - {"global"}
    assert used - {"gateway.resources.limits.memory"} == declared


def test_expressions_stand_on_one_line_and_nothing_else_looks_like_one() -> None:
    for path, text in FILES.items():
        if path.startswith("templates/"):
            for line in text.splitlines():
                assert "{{" not in EXPRESSION.sub("", line), f"{path}: {line}"


def test_definitions_stay_when_the_release_goes() -> None:
    found = list(yaml.safe_load_all(FILES["templates/crds.yaml"]))
    assert len(found) == len(crds())
    for each in found:
        assert each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_helm_makes_the_namespace_and_no_other_will_do() -> None:
    assert "kind: Namespace" not in "".join(FILES.values())
    assert 'ne .Release.Namespace "modelyard-system"' in FILES["templates/checks.yaml"]


def test_nothing_that_stands_for_a_value_is_left() -> None:
    text = "".join(FILES.values())
    assert "@secret@" not in text
    for number in (chart._MEMORY, *xds_bootstrap.limits(chart._MEMORY)):
        assert str(number) not in text


def test_the_chart_computes_the_limits_of_envoy_as_we_do() -> None:
    text = FILES["templates/gateway.yaml"]
    for expression in ("{{ $heap }}", "{{ $connections }}", "{{ div (mul $connections 3) 4 }}"):
        assert expression in text
    for size in (256 * 2**20, 2**30, 1536 * 2**20, 64 * 2**30):
        heap = size * 8 // 10
        connections = max(256, heap // 131072)
        assert xds_bootstrap.limits(size) == (connections, connections * 3 // 4, heap)
