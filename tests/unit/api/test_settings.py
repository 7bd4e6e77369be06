import pytest

from modelyard.api import settings
from modelyard.base.errors import InvalidFields, UserError


def issuer(**fields: object) -> str:
    return str({"issuers": [{"name": "corp", "url": "https://corp.example", "audiences": ["m"], **fields}]})


def test_nothing_given_is_the_defaults() -> None:
    assert settings.parse("") == settings.parse("{}") == settings.Settings()


@pytest.mark.parametrize("url", ["https://corp.example/realm", "http://127.0.0.1:8080", "http://localhost/x"])
def test_issuers_are_reached_safely(url: str) -> None:
    assert settings.parse(issuer(url=url)).issuers[0].url == url


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"url": "http://corp.example"}, "issuers[0].url"),
        ({"url": "http://localhost.corp.example"}, "issuers[0].url"),
        ({"url": "http://localhost:1@corp.example"}, "issuers[0].url"),
        ({"url": "https://me:secret@corp.example"}, "issuers[0].url"),
        ({"url": "https://"}, "issuers[0].url"),
        ({"jwksUri": "ftp://corp.example"}, "issuers[0].jwksUri"),
        ({"clockSkew": "6m"}, "issuers[0].clockSkew"),
        ({"audiences": []}, "issuers[0].audiences"),
        ({"name": "Corp"}, "issuers[0].name"),
        ({"secret": "x"}, "issuers[0].secret"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(fields: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidFields) as told:
        settings.parse(issuer(**fields))
    assert [each.path for each in told.value.errors] == [path]
    assert "secret@" not in told.value.message


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"name": "modelyard"}, {}, "the name 'modelyard' is taken"),
        ({"name": "serviceaccounts"}, {}, "the name 'serviceaccounts' is taken"),
        ({"name": "b"}, {}, "the name 'b' is taken"),
        ({"url": "https://b.example"}, {}, "is given twice"),
        ({"prefix": "b:"}, {}, "begin alike"),
        ({"prefix": "b"}, {}, "begin alike"),
        ({"prefix": "system:"}, {}, "is the system's"),
        ({"prefix": "system:x:"}, {}, "is the system's"),
        ({"prefix": "sys"}, {}, "is the system's"),
    ],
)
def test_no_two_issuers_can_be_taken_for_each_other_or_for_the_system(
    first: dict[str, object], second: dict[str, object], why: str
) -> None:
    both = [
        {"name": "a", "url": "https://a.example", "audiences": ["m"], **first},
        {"name": "b", "url": "https://b.example", "audiences": ["m"], **second},
    ]
    with pytest.raises(UserError, match=why):
        settings.parse(str({"issuers": both}))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("modelStore: {uri: /models}", "modelStore.uri"),
        ("modelStore: {uri: 's3://models?x=1'}", "modelStore.uri"),
        ("gateway: {address: models.example.com}", "gateway.address"),
        ("gateway: {address: 'https://models.example.com/path'}", "gateway.address"),
        ("gateway: {address: 'https://me@models.example.com'}", "gateway.address"),
    ],
)
def test_places_are_spelled_in_full(text: str, path: str) -> None:
    with pytest.raises(InvalidFields) as told:
        settings.parse(text)
    assert [each.path for each in told.value.errors] == [path]
