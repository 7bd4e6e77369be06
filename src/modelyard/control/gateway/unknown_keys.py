"""Notice that tokens name a key which their issuer did not have when it was last asked.

Envoy counts such tokens and is asked for the count now and then: a caller who sends many costs no more than one.
"""

import re
from collections.abc import Awaitable, Callable

from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater
from modelyard.control.render import xds_access

PAUSE_SECONDS = 5.0
_MOST_SHARE = 0.02
"""Of Envoy's main thread: it looks at all its statistics to find the one."""
_PATH = "/stats?usedonly&filter=" + re.sub(r"(\W)", lambda found: f"%{ord(found[1]):02X}", xds_access.UNKNOWN_KEYS)


async def watch(
    admin: Callable[[str, str], Awaitable[str]], clock: Clock, told: Callable[[], None], wanted: Callable[[], bool]
) -> None:
    """Call `told` for every look at which there were more, until cancelled.

    admin: of Envoy, or of several, whose answers follow each other. wanted: whether there is anything to look for.
    """
    seen = 0
    while True:
        began = clock.monotonic()
        count = await _count(admin) if wanted() else 0
        if count > seen:
            told()
        seen = count  # less than before: Envoy was started again
        await clock.sleep(max(PAUSE_SECONDS, (clock.monotonic() - began) / _MOST_SHARE))


async def _count(admin: Callable[[str, str], Awaitable[str]]) -> int:
    try:
        text = await admin("GET", _PATH)
    except (RetryLater, TimeoutError):
        return 0
    found = re.findall(rf"^{re.escape(xds_access.UNKNOWN_KEYS)}: ([0-9]+)$", text, re.MULTILINE)
    return sum(map(int, found))
