"""Who called, as the gateway's log is told to find it out."""

import re

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.ir.platform import Issuer
from modelyard.control.render import xds_log

JWT = "envoy.filters.http.jwt_authn"
PLACE = r"metadata\.filter_metadata\['envoy\\U0000002efilters\\U0000002ehttp\\U0000002ejwt_authn'\]"
STRING = r"'(?:[A-Za-z0-9_-]|\\U[0-9a-f]{8})*'"


def issuer(**fields: object) -> Issuer:
    given = {"name": "corp", "url": "https://corp.example", "audiences": ("models",), "keys": "{}"} | fields
    return Issuer(**given)  # type: ignore[arg-type]


def told(*issuers: Issuer) -> str:
    found = xds_log.identify(issuers, JWT)
    (value,) = found["on_request_headers"]
    assert value["skip_if_empty"]
    return str(value["format_string"]["text_format_source"]["inline_string"])


def test_without_issuers_nobody_is_told() -> None:
    assert xds_log.identify((), JWT) == {"@type": xds_log.SET_FILTER_STATE}


def test_a_name_without_prefix_is_the_claim_alone() -> None:
    assert told(issuer()) == f"%DYNAMIC_METADATA({JWT}:corp:sub):253%"
    assert told(issuer(username=("a", "b"))) == f"%DYNAMIC_METADATA({JWT}:corp:a:b):253%"


def test_several_issuers_stand_one_after_the_other() -> None:
    assert told(issuer(name="a"), issuer(name="b")) == told(issuer(name="a")) + told(issuer(name="b"))


@given(st.text(min_size=1, max_size=20), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3))
def test_whatever_settings_say_nothing_ends_a_string_or_an_operator(prefix: str, claim: list[str]) -> None:
    plain = all(re.fullmatch(r"[A-Za-z0-9_-]+", each) for each in claim)
    value = rf"%DYNAMIC_METADATA\({JWT}:corp(:[A-Za-z0-9_-]+)+\):253%" if plain else None
    value = value or rf"%CEL\({PLACE}(\[{STRING}\])+\):253%"
    mark = rf"%CEL\({STRING} in {PLACE} \? {STRING} : ''\)%"
    assert re.fullmatch(mark + value, told(issuer(prefix=prefix, username=tuple(claim))))


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3))
def test_a_claim_that_must_be_true_is_looked_for_from_the_top_down(claim: list[str]) -> None:
    found = told(issuer(verified=tuple(claim)))
    at = rf"{PLACE}(\[{STRING}\])*"
    inside = rf"(\({STRING} in {at}\) && ){{{len(claim)}}}type\({at}\) == bool && {at}"
    assert re.match(rf"%CEL\({inside} \? '' : '\(not verified\) '\)%", found)
