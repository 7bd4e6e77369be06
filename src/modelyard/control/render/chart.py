"""The Helm chart: the objects of an installation with the values that people expect in place of ours.

Source: helm.sh/docs/topics/charts. The definitions lie in `templates/`, since Helm never changes what lies in `crds/`;
they stay when the release goes, since everything that people made would go with them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from textwrap import indent
from typing import Any, cast

from modelyard.control.render import xds_bootstrap
from modelyard.control.render.documents import document, documents
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import NAMESPACE, Object, Options

_TAG = "{{ .Values.image.tag | default .Chart.AppVersion }}"
_SECRET = "@secret@"  # noqa: S105  stands for the value until the objects are made
_SECRETS = "{{ range $i, $each := .Values.imagePullSecrets }}{{ if $i }},{{ end }}{{ $each.name }}{{ end }}"
_MEMORY = 1_234_567_891_000
"""Stands for the bytes of a gateway's limit until the objects are text: no other number is like those made of it."""
_LIMITS = """\
{{- $limit := .Values.gateway.resources.limits.memory }}
{{- $unit := ternary 1073741824 1048576 (hasSuffix "Gi" $limit) }}
{{- $heap := div (mul (int64 (trimSuffix "Gi" (trimSuffix "Mi" $limit))) $unit 8) 10 }}
{{- $connections := max 256 (div $heap 131072) }}
"""
"""What `xds_bootstrap.limits` computes."""
_BARE = re.compile(r"'(\{\{ (?:int|toJson) [^'{}]* \}\})'")
_FOLDERS = {
    "CustomResourceDefinition": "crds",
    "ClusterRole": "rbac",
    "ClusterRoleBinding": "rbac",
    "Role": "rbac",
    "RoleBinding": "rbac",
    "ServiceAccount": "rbac",
    "NetworkPolicy": "network-policies",
}


def files(options: Options, definitions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Path inside the chart -> content. options: the defaults of its values."""
    found = {
        "Chart.yaml": document(_chart(options.version)),
        "values.yaml": _values(options),
        "values.schema.json": json.dumps(_SCHEMA, indent=2) + "\n",
        "templates/NOTES.txt": _NOTES,
        "templates/checks.yaml": _CHECKS,
    }
    for name, bodies in _sorted(manifests(_templated(options), definitions)).items():
        text = documents(_filled(each) for each in bodies)
        found[f"templates/{name}.yaml"] = _finished(name, text)
    return found


class _GatewayResources(dict[str, Any]):
    """Where Envoy's limits are made from them they are a number, where the pod gets them an expression."""


def _templated(options: Options) -> Options:
    """Every value is the expression that Helm puts the value for."""
    return replace(
        options,
        version=_TAG,
        image_prefix="{{ .Values.image.prefix }}",
        operator_replicas=cast(int, "{{ int .Values.operator.replicas }}"),
        gateway_replicas=cast(int, "{{ int .Values.gateway.replicas }}"),
        service_type=cast(Any, "{{ .Values.gateway.service.type }}"),
        pull_policy=cast(Any, "{{ .Values.image.pullPolicy }}"),
        pull_secrets=(_SECRET,),
        network_policies=True,
        operator_resources=cast(Any, "{{ toJson .Values.operator.resources }}"),
        gateway_resources=_GatewayResources(limits={"memory": str(_MEMORY)}),
        managed_by="{{ .Release.Service }}",
    )


def _sorted(bodies: Iterable[Object]) -> dict[str, list[Object]]:
    """By the file they go into. The namespace is made by Helm."""
    found: dict[str, list[Object]] = {}
    for body in bodies:
        if body["kind"] == "Namespace":
            continue
        component = body["metadata"]["labels"]["app.kubernetes.io/component"]
        found.setdefault(_FOLDERS.get(body["kind"], component), []).append(body)
    return found


def _filled(value: Any) -> Any:
    """What stands for lists becomes their expression; definitions are kept when the release goes."""
    if isinstance(value, _GatewayResources):
        return "{{ toJson .Values.gateway.resources }}"
    if isinstance(value, dict):
        found = {key: _filled(each) for key, each in value.items()}
        if value.get("kind") == "CustomResourceDefinition":
            keep = {"annotations": {"helm.sh/resource-policy": "keep"}}
            found["metadata"] = {**found["metadata"], **keep}
        return found
    if value == [{"name": _SECRET}]:
        return "{{ toJson .Values.imagePullSecrets }}"
    if isinstance(value, list):
        return [_filled(each) for each in value]
    return _SECRETS if value == _SECRET else value


def _finished(name: str, text: str) -> str:
    text = _BARE.sub(r"\1", text)
    if name == "gateway":
        made = xds_bootstrap.limits(_MEMORY)
        text = text.replace(str(made.heap_bytes), "{{ $heap }}").replace(str(made.connections), "{{ $connections }}")
        text = _LIMITS + text.replace(str(made.public_connections), "{{ div (mul $connections 3) 4 }}")
    if name == "network-policies":
        text = f"{{{{- if .Values.networkPolicies.enabled }}}}\n{text}{{{{- end }}}}\n"
    return text


def _chart(version: str) -> Object:
    return {
        "apiVersion": "v2",
        "name": "modelyard",
        "description": "Machine-learning models as services, in jobs and on streams",
        "type": "application",
        "version": version,
        "appVersion": version,
        "kubeVersion": ">=1.30.0-0",
    }


def _values(options: Options) -> str:
    return f"""\
image:
  # What the names of the three images begin with: <prefix>operator, <prefix>gateway, <prefix>runtime.
  prefix: {options.image_prefix}
  # The version of the chart by default.
  tag: ""
  pullPolicy: {options.pull_policy}

# Secrets with the registry's credentials, as in [{{name: registry}}]: in {NAMESPACE}, and wherever models run.
imagePullSecrets: []

operator:
  replicas: {options.operator_replicas}
  resources:
{_indented(options.operator_resources)}

gateway:
  replicas: {options.gateway_replicas}
  resources:
{_indented(options.gateway_resources)}
  service:
    # ClusterIP, LoadBalancer or NodePort.
    type: {options.service_type}

networkPolicies:
  enabled: {json.dumps(options.network_policies)}
"""


def _indented(value: Mapping[str, Any]) -> str:
    return indent(document(value), 4 * " ").rstrip()


_CHECKS = f"""\
{{{{- if ne .Release.Namespace "{NAMESPACE}" }}}}
{{{{- fail "Modelyard lives in the namespace {NAMESPACE}: add --namespace {NAMESPACE} --create-namespace" }}}}
{{{{- end }}}}
"""

_NOTES = f"""\
Wait until it is there:   kubectl -n {NAMESPACE} rollout status deployment/modelyard-gateway
Then apply a manifest:    modelyard apply -f service.yaml --context NAME --wait

helm uninstall keeps the definitions, and with them what was made. To remove everything:
modelyard uninstall --context NAME
"""


def _object(**properties: Object) -> Object:
    return {"type": "object", "additionalProperties": False, "properties": properties}


_SCHEMA: Object = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **_object(
        image=_object(
            prefix={"type": "string", "minLength": 1},
            tag={"type": "string", "pattern": "^[A-Za-z0-9_.-]{0,128}$"},
            pullPolicy={"enum": ["IfNotPresent", "Always", "Never"]},
        ),
        imagePullSecrets={
            "type": "array",
            "items": {**_object(name={"type": "string", "minLength": 1}), "required": ["name"]},
        },
        operator=_object(replicas={"type": "integer", "minimum": 1}, resources={"type": "object"}),
        gateway=_object(
            replicas={"type": "integer", "minimum": 1},
            resources={
                "type": "object",
                "required": ["limits"],
                "properties": {
                    "limits": {
                        "type": "object",
                        "required": ["memory"],
                        # Envoy is told the limit in bytes.
                        "properties": {"memory": {"type": "string", "pattern": "^[1-9][0-9]*[GM]i$"}},
                    }
                },
            },
            service=_object(type={"enum": ["ClusterIP", "LoadBalancer", "NodePort"]}),
        ),
        networkPolicies=_object(enabled={"type": "boolean"}),
    ),
}
_SCHEMA["properties"]["global"] = {"type": "object"}  # Helm gives it to charts that are part of another one
