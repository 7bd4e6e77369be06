"""Names that Envoy cannot tell apart: whoever had one keeps it, and the other one says why it is not served."""

from functools import partial

from msgspec.structs import replace

from collisions_testing import IRIS_TWIN
from modelyard.control.ir.values import Key
from modelyard.control.render import xds
from modelyard.testing.gateway_suite import IRIS, acknowledged, route, until

from .conftest import EnvoyRig, becomes

TWIN = Key(kind="ModelService", namespace="default", name=IRIS_TWIN)


async def test_a_newcomer_whose_name_collides_waits_until_the_other_one_is_gone(rig: EnvoyRig) -> None:
    units = (await rig.endpoints("a"), await rig.endpoints("b"))
    iris, twin = route(IRIS, "a"), route(TWIN, "b")
    await rig.gateway.publish((iris,), units)
    await acknowledged(rig.gateway, iris)
    await rig.gateway.publish((iris, twin), units)
    refused = await until(rig.gateway, TWIN, lambda each: each.rejected != "")
    assert "has the same hash as 'iris'" in refused.rejected
    assert (await rig.ask("iris"), (await rig.ask(IRIS_TWIN))[0]) == ((200, "a"), 404)
    # Envoy has the one until it has taken that it is gone, and refuses the other one for so long.
    await rig.gateway.publish((twin,), units)
    await acknowledged(rig.gateway, twin)
    assert (await rig.ask(IRIS_TWIN), (await rig.ask("iris"))[0]) == ((200, "b"), 404)
    await rig.gateway.publish((iris,), units)
    await acknowledged(rig.gateway, iris)
    assert (await rig.ask("iris"))[0] == 200


async def test_envoy_itself_takes_them_for_one(rig: EnvoyRig) -> None:
    """Or all of this would be for nothing: `scope_key` says what Envoy does."""
    iris = route(IRIS, "a")
    await rig.gateway.publish((iris,), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, iris)
    twin = xds.scope(IRIS_TWIN, replace(iris, ids=(IRIS_TWIN,)))
    rig.gateway._ads.put(xds.SCOPE, IRIS_TWIN, twin)

    async def said() -> str:
        return rig.gateway._ads.refusal(xds.SCOPE, IRIS_TWIN)

    assert "conflict" in await becomes(partial(said), bool)
    assert (await rig.ask("iris"))[0] == 200
