"""What requests ask for."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.schema import crds
from modelyard.control.apiserver import kinds, requests
from modelyard.control.apiserver.requests import Catalog
from modelyard.control.apiserver.status import StatusError

_CATALOG = Catalog((*kinds.builtin(), *map(kinds.from_crd, crds())))
_OURS = "/apis/modelyard.dev/v1alpha1"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/namespaces", ("namespaces", None, None, "")),
        ("/api/v1/namespaces/n", ("namespaces", None, "n", "")),
        ("/api/v1/secrets", ("secrets", None, None, "")),
        ("/api/v1/namespaces/n/secrets", ("secrets", "n", None, "")),
        ("/api/v1/namespaces/n/secrets/s", ("secrets", "n", "s", "")),
        (f"{_OURS}/modelservices", ("modelservices", None, None, "")),
        (f"{_OURS}/namespaces/n/modelservices/m/", ("modelservices", "n", "m", "")),
        (f"{_OURS}/namespaces/n/modelservices/m/status", ("modelservices", "n", "m", "status")),
        (f"{_OURS}/namespaces/n/modelservices/m/scale", ("modelservices", "n", "m", "scale")),
    ],
)
def test_a_path_names_a_collection_an_object_or_a_part(path: str, expected: tuple[str, ...]) -> None:
    found = requests.locate(path, _CATALOG)
    assert found is not None
    assert (found.kind.plural, found.namespace, found.name, found.subresource) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1/pods",
        "/api/v2/secrets",
        "/api/v1/secrets/s",
        "/api/v1/namespaces/n/secrets/s/log",
        "/api/v1/namespaces/n/namespaces",
        "/api/v1/namespaces//secrets",
        "/api/v1/namespaces/n/secrets/s/status",
        f"{_OURS}/namespaces/n/models/m/scale",
        f"{_OURS}/namespaces/n/models/m/status/x",
        "/apis/modelyard.dev/v9/models",
    ],
)
def test_other_paths_name_nothing(path: str) -> None:
    assert requests.locate(path, _CATALOG) is None


def test_a_page_token_survives_the_journey() -> None:
    token = requests.continue_token(7, "n", "näme")
    assert requests.list_options({"continue": token, "limit": "3"}).resume == (7, "n", "näme")


@pytest.mark.parametrize(
    "query",
    [
        {"continue": "x"},
        {"continue": "bm9uc2Vuc2U="},
        {"continue": requests.continue_token(1, "a", "b"), "resourceVersion": "3"},
        {"limit": "-1"},
        {"limit": "٣"},
        {"resourceVersion": "abc"},
        {"resourceVersion": "9" * 40},
        {"timeoutSeconds": "1.5"},
        {"resourceVersionMatch": "Sometimes", "resourceVersion": "1"},
        {"resourceVersionMatch": "Exact"},
        {"sendInitialEvents": "true"},
        {"allowWatchBookmarks": "perhaps"},
    ],
)
def test_a_list_option_that_makes_no_sense_is_a_bad_request(query: dict[str, str]) -> None:
    with pytest.raises(StatusError) as caught:
        requests.list_options(query)
    assert caught.value.code == 400


def test_a_watch_begins_with_what_there_is_unless_it_continues() -> None:
    assert requests.list_options({}).initial_events
    assert requests.list_options({"resourceVersion": "0"}).initial_events
    assert not requests.list_options({"resourceVersion": "4"}).initial_events


def test_the_first_form_that_can_be_given_is_taken() -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    assert requests.form(f"{table},application/json", {"includeObject": "Object"}) == requests.Form(True, "Object")
    assert not requests.form(f"application/json;as=Table;v=v9;g=meta.k8s.io,{table.upper()},*/*", {}).table
    assert not requests.form("application/vnd.kubernetes.protobuf, application/json", {}).table
    assert not requests.form("", {}).table
    with pytest.raises(StatusError) as caught:
        requests.form("application/vnd.kubernetes.protobuf", {})
    assert caught.value.code == 406


def test_deletion_reads_options_from_the_body_before_the_query() -> None:
    body = {"propagationPolicy": "Foreground", "preconditions": {"uid": "u"}, "dryRun": ["All"]}
    found = requests.delete_options({"propagationPolicy": "Orphan"}, body)
    assert (found.propagation, found.uid, found.dry_run) == ("Foreground", "u", True)
    assert requests.delete_options({"propagationPolicy": "Orphan"}, {}).propagation == "Orphan"
    assert requests.delete_options({}, {"orphanDependents": True}).propagation == "Orphan"
    assert requests.delete_options({}, {}).propagation is None


def outcome(read: Callable[[], object]) -> object:
    """What was read, or the code of the refusal."""
    try:
        return read()
    except StatusError as error:
        return error.code


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "kind": st.just("DeleteOptions") | st.text(max_size=3),
            "propagationPolicy": st.text(max_size=3) | st.integers() | st.lists(st.none()),
            "preconditions": st.none() | st.integers() | st.dictionaries(st.sampled_from(["uid"]), st.integers()),
            "dryRun": st.none() | st.text(max_size=3) | st.lists(st.text(max_size=3) | st.lists(st.none())),
        },
    )
)
def test_arbitrary_delete_options_are_read_or_refused(body: dict[str, object]) -> None:
    found = outcome(lambda: requests.delete_options({}, body))
    assert found == 400 or isinstance(found, requests.DeleteOptions)


@given(st.dictionaries(st.sampled_from(["limit", "continue", "watch", "resourceVersion", "dryRun"]), st.text()))
def test_arbitrary_queries_are_read_or_refused(query: dict[str, str]) -> None:
    found = outcome(lambda: requests.list_options(query)), outcome(lambda: requests.write_options(query))
    assert found[0] == 400 or isinstance(found[0], requests.ListOptions)
    assert found[1] == 400 or isinstance(found[1], requests.WriteOptions)
    assert outcome(lambda: requests.is_watch(query)) in (400, True, False)


@given(st.sampled_from(["application/json", "application/yaml", "text/html"]), st.binary() | st.text().map(str.encode))
def test_arbitrary_bodies_are_read_or_refused(content_type: str, data: bytes) -> None:
    found = outcome(lambda: requests.body(content_type, data))
    assert found in (400, 415) or isinstance(found, dict)


def test_yaml_is_read_as_json_would_be() -> None:
    assert requests.body("application/yaml", b"a: 2024-01-01\nb: [1, 2.0]\n") == {"a": "2024-01-01", "b": [1, 2]}
