"""Ways into the gateway, in Envoy's words."""

import json
from typing import Any

import pytest

from modelyard.control.gateway import descriptors
from modelyard.control.ir.platform import Tls
from modelyard.control.render import xds, xds_listener, xds_tls
from modelyard.control.render.xds_door import Door, Lock

OTHERS = Door(host="192.0.2.1", port=8443, internal=False, exposed=True)


def chain(door: Door) -> dict[str, Any]:
    (found,) = xds_listener.listener(door, "access.log")["filter_chains"]
    assert isinstance(found, dict)
    return found


def manager(door: Door) -> dict[str, Any]:
    found = chain(door)["filters"][0]["typed_config"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("lock", Lock)
@pytest.mark.parametrize("door", [OTHERS, Door(port=1), Door(host="::", port=1)])
def test_every_door_can_be_said_to_envoy(door: Door, lock: Lock) -> None:
    assert descriptors.encode(xds.LISTENER, xds_listener.listener(door._replace(lock=lock), "access.log"))


def test_doors_differ_in_nothing_but_their_chain_so_that_connections_of_others_stay() -> None:
    bodies = []
    for lock in Lock:
        body = xds_listener.listener(OTHERS._replace(lock=lock), "access.log")
        del body["filter_chains"]
        bodies.append(json.dumps(body, sort_keys=True))
    assert len(set(bodies)) == 1


def test_a_closed_door_has_a_chain_that_no_connection_matches() -> None:
    assert list(chain(OTHERS._replace(lock=Lock.CLOSED))["filter_chain_match"]) == ["source_prefix_ranges"]
    assert "filter_chain_match" not in chain(OTHERS)


def test_only_the_internal_door_marks_requests_after_what_callers_sent_was_taken_away() -> None:
    def mutations(door: Door) -> list[dict[str, Any]]:
        found = manager(door)["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
        assert isinstance(found, list)
        return found

    kinds = [next(iter(each)) for each in mutations(Door(port=1))]
    marked = [number for number, each in enumerate(mutations(Door(port=1))) if "x-modelyard-listener" in str(each)]
    assert len(marked) == 1
    assert "x-modelyard-" in str(mutations(Door(port=1))[: marked[0]])
    assert "remove_on_match" not in kinds[marked[0] :]
    assert "x-modelyard-listener" not in str(mutations(OTHERS))


def test_connections_of_other_machines_have_less_memory_and_fewer_streams() -> None:
    assert manager(OTHERS)["http2_protocol_options"]["max_concurrent_streams"] == 100
    assert "http2_protocol_options" not in manager(Door(port=1))


def test_certificates_are_named_and_never_in_the_listener() -> None:
    tls = Tls(certificate="CERTIFICATE", key="KEY", client_ca="AUTHORITY")
    assert sorted(xds_tls.secrets(tls)) == ["callers", "gateway"]
    assert sorted(xds_tls.secrets(Tls(certificate="c", key="k"))) == ["gateway"]
    for name, secret in xds_tls.secrets(tls).items():
        assert descriptors.encode(xds.SECRET, secret)
        assert secret["name"] == name
    context = chain(OTHERS._replace(lock=Lock.MUTUAL))["transport_socket"]["typed_config"]
    assert context["require_client_certificate"] is True
    assert context["common_tls_context"]["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_2"
    # Without an end: a listener whose certificate does not come must not open without it.
    assert str(context).count("'initial_fetch_timeout': '0s'") == 2
    assert "require_client_certificate" not in chain(OTHERS._replace(lock=Lock.TLS))["transport_socket"]["typed_config"]
    assert "KEY" not in repr(tls)
