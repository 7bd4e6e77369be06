"""Random rules of access, and random callers, for tests that compare what two readers make of them."""

from typing import Any

from hypothesis import strategies as st

import tokens_testing as tokens
from modelyard.control.ir.access import ANONYMOUS, Access, Caller, Claim, Subject

KEYS = {
    "corp": tokens.signer(kid="corp"),
    "rs": tokens.signer("RS256", "rs"),
    "ed": tokens.signer("EdDSA", "ed"),
}
"""Of the issuers that the callers have their tokens from."""
Holder = tuple[str, dict[str, Any]] | None
"""Who calls: the issuer of a token and what it claims, or nobody in particular."""

NAMES, ISSUED = ["ana", "bob", "", "a b", "é"], sorted(KEYS)
VALUES = st.sampled_from([*NAMES, True, False])
PATHS = st.sampled_from([("sub",), ("groups",), ("realm", "roles"), ("realm", "a", "b"), ("odd.name",), ("flag",)])
CLAIM = st.builds(Claim, path=PATHS, value=VALUES, listed=st.booleans())
CALLER = st.builds(
    Caller,
    issuer=st.sampled_from(ISSUED),
    claims=st.lists(CLAIM, max_size=2, unique=True).map(lambda c: tuple(sorted(c, key=str))),
)
ACCESS = st.builds(
    Access,
    authentication=st.sampled_from(["required", "required", "optional", "none"]),
    callers=st.lists(st.one_of(CALLER, st.just(ANONYMOUS)), max_size=6, unique=True).map(tuple),
)
SUBJECTS = st.lists(PATHS, min_size=3, max_size=3).map(
    lambda paths: tuple(Subject(issuer=name, path=path) for name, path in zip(ISSUED, paths, strict=True))
)
CLAIMED = st.one_of(VALUES, st.integers(0, 3), st.none(), st.lists(st.one_of(VALUES, st.integers(0, 3)), max_size=3))
HOLDERS = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(ISSUED),
        st.fixed_dictionaries(
            {},
            optional={
                "sub": st.sampled_from(NAMES),  # whatever else makes no token for Envoy
                "groups": CLAIMED,
                "realm": st.one_of(CLAIMED, st.fixed_dictionaries({"roles": CLAIMED, "a": CLAIMED})),
                "odd.name": CLAIMED,
                "flag": CLAIMED,
            },
        ),
    ),
)


def headers(holder: Holder) -> dict[str, str]:
    """What a caller sends."""
    if holder is None:
        return {}
    name, claims = holder
    return {"authorization": "Bearer " + tokens.token(name, KEYS[name], **{"sub": None, **claims})}


def known(holder: Holder) -> tuple[str, dict[str, Any]]:
    """The issuer and the claims that a gateway finds."""
    name, claims = holder or ("", {})
    return name, {key: value for key, value in claims.items() if value is not None}
