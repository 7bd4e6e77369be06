import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver_testing import KINDS, code_of, make
from modelyard.control.apiserver import selectors
from modelyard.control.apiserver.status import StatusError

LABELS = {"app": "iris", "tier": "web", "size": "10", "empty": "", "a.b/c": "d"}


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "app", "app=iris", "app==iris", "app = iris", "app!=rose", "none!=x", "app in (iris, rose)",
        "app in (iris)", "app notin (rose)", "none notin (x)", "!none", "! none", "size>9", "size<11", "empty=",
        "empty in ()", "empty in (,x)", "a.b/c=d", "app=iris,tier=web,!none", "app,tier in (web,db) , size>1",
        "app in(iris)",
    ],
)  # fmt: skip
def test_selectors_that_match(text: str) -> None:
    assert selectors.labels(text)(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "none", "app=rose", "app!=iris", "app in (rose)", "app notin (iris,rose)", "!app", "size>10", "size<10",
        "app>1", "none=", "none in (x)", "app=iris,none",
    ],
)  # fmt: skip
def test_selectors_that_do_not_match(text: str) -> None:
    assert not selectors.labels(text)(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        ",", "a,", ",a", "=a", "a=b=c", "a in", "a in b", "a in (b", "a in (b c)", "a b", "(a)", "!a=b", "!", "a=!",
        "a>b", "a>", "-a=b", "a=b c", "a=-", "a/b/c=d", "a=(b)", "!!a", "x" * 20_000,
    ],
)  # fmt: skip
def test_label_selectors_that_make_no_sense_are_bad_requests(text: str) -> None:
    with pytest.raises(StatusError) as refused:
        selectors.labels(text)
    assert refused.value.code == 400


def test_fields_of_every_kind_and_those_of_events_and_secrets_are_selected() -> None:
    event = make("Event", "e", reason="Ready", type="Normal", involvedObject={"kind": "Model", "name": "iris"})
    event["source"] = {"component": "modelyard"}
    kind = KINDS["Event"]
    for text in (
        "",
        "metadata.name=e",
        "metadata.namespace==default,reason!=Failed",
        "involvedObject.kind=Model,involvedObject.name=iris,involvedObject.uid=",
        "type=Normal,source=modelyard",
    ):
        assert selectors.fields(text, kind)(event), text
    assert not selectors.fields("metadata.name=e,involvedObject.name=rose", kind)(event)
    assert selectors.fields("type=Opaque", KINDS["Secret"])(make("Secret", type="Opaque"))
    assert not selectors.fields("type!=Opaque", KINDS["Secret"])(make("Secret", type="Opaque"))


def test_escaped_values_are_taken_as_they_are() -> None:
    assert selectors.fields(r"reason=a\,b\=c\\", KINDS["Event"])({"reason": "a,b=c\\"})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("spec.replicas=1", "ModelService"),
        ("reason=x", "Model"),
        ("metadata.namespace=x", "Namespace"),
        ("metadata.name", "Model"),
        ("metadata.name=a=b", "Model"),
        (r"metadata.name=a\b", "Model"),
        ("metadata.name=a\\", "Model"),
    ],
)
def test_field_selectors_that_are_not_served_are_bad_requests(text: str, kind: str) -> None:
    with pytest.raises(StatusError) as refused:
        selectors.fields(text, KINDS[kind])
    assert refused.value.code == 400


@given(st.text(alphabet="ab=!,()<> \\inot.\n\u00e4", max_size=20) | st.text(max_size=20))
@settings(max_examples=150)
def test_any_text_selects_or_is_a_bad_request(text: str) -> None:
    assert code_of(lambda: selectors.labels(text)(LABELS)) in (200, 400)
    assert code_of(lambda: selectors.fields(f"reason={text}", KINDS["Event"])({})) in (200, 400)
