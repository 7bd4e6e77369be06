from modelyard.base import ids


def test_only_the_default_namespace_has_bare_ids() -> None:
    assert ids.public_ids("default", "iris") == ("iris.default", "iris")
    assert ids.public_ids("shop", "iris") == ("iris.shop",)


def test_a_digest_is_spelled_in_one_way() -> None:
    assert ids.is_digest("sha256:" + "a" * 64)
    assert not any(ids.is_digest(text) for text in ("sha256:" + "A" * 64, "a" * 64, "sha256:" + "a" * 63, ""))
