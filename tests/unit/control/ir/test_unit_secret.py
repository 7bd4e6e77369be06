"""The secret of a unit: what its replicas demand of the gateway."""

import hashlib
import re

from modelyard.control.ir.unit_secret import digest, none, unit_secret

KEY = bytes(range(32))


def test_each_unit_has_a_secret_of_its_own_which_stays_as_it_is() -> None:
    secrets = {unit: unit_secret(KEY, unit) for unit in ("iris-svc-00001.shop", "iris-svc-00002.shop", "a-svc-00001.x")}
    assert len(set(secrets.values())) == 3
    assert all(re.fullmatch(r"[0-9a-f]{64}", each) for each in secrets.values())
    assert secrets == {unit: unit_secret(KEY, unit) for unit in secrets}


def test_another_key_gives_other_secrets() -> None:
    assert unit_secret(KEY, "iris") != unit_secret(bytes(32), "iris")


def test_without_a_key_there_are_none() -> None:
    assert none("iris") == ""


def test_its_digest_tells_nothing_of_it_and_nothing_has_none() -> None:
    secret = unit_secret(KEY, "iris")
    assert digest(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert digest("") == ""
