"""The listeners, as Envoy is told them: which way callers come in, and with what certificate. No IO.

A change of what the public one demands closes it first. Envoy keeps an old listener until the new one has all that it
needs, so a certificate that it refuses would leave the door open in plain text, or to callers without certificates.
"""

import logging
from collections.abc import Callable
from typing import Any

from modelyard.base.errors import UserError
from modelyard.control.gateway import addresses
from modelyard.control.gateway.units import Discovery
from modelyard.control.ir.platform import Tls
from modelyard.control.render import xds, xds_tls
from modelyard.control.render.xds_door import Door, Lock

_log = logging.getLogger(__name__)

Listener = Callable[[Door], dict[str, Any]]


class Doors:
    """Level-triggered: `aim` tells what is wanted, `settle` does what is next once Envoy has answered.

    listener: how a door is said to Envoy.
    """

    def __init__(self, discovery: Discovery, listener: Listener) -> None:
        self._discovery = discovery
        self._listener = listener
        self._public = Door()
        self._internal: Door | None = None
        self._is_open = False
        self._is_inherited = False
        self._wanted: Lock | None = None  # nobody has said it yet
        self._told = Lock.OPEN
        self._tls: Tls | None = None
        self._shown: Tls | None = None  # Envoy acknowledged it
        self._refused: Tls | None = None

    @property
    def local(self) -> Door:
        """That of this machine's own programs."""
        return self._internal or self._now

    @property
    def place(self) -> tuple[str, int]:
        """Address and port of the public one, or of the one that Envoy refuses."""
        refused = next((each for each in self._all() if self._why(each)), self._now)
        return refused.host, refused.port

    @property
    def scheme(self) -> str:
        """In which callers come in by the public one."""
        return "http" if (self._wanted or Lock.OPEN) is Lock.OPEN else "https"

    @property
    def url(self) -> str:
        """Of the public one."""
        return _url(self._public, self._wanted or Lock.OPEN)

    @property
    def local_url(self) -> str:
        """Of `local`."""
        return _url(self._internal, Lock.OPEN) if self._internal else self.url

    def open(self, public: Door, internal: Door | None, *, inherited: bool = False) -> None:
        """Begin, or begin again at other ports. internal: beside a public one that other machines reach.

        Such a one stays closed until it is said whether it takes TLS. inherited: callers come in already, as somebody
        else has told Envoy; it was said, and most likely nothing is to change.
        """
        self._public, self._internal = public, internal
        self._is_inherited = inherited
        if not self._is_open:
            closed = public.exposed if self._wanted is None else self._wanted is not Lock.OPEN
            self._told = Lock.CLOSED if closed else Lock.OPEN
            if inherited and self._wanted is not None:
                self._told = self._wanted
        self._is_open = True
        self.again()

    def aim(self, tls: Tls | None) -> None:
        """Make this what the public one shows and demands. None: plain text."""
        if self._wanted is not None and tls == self._tls:
            return
        self._tls, self._refused = tls, None
        self._wanted = _lock(tls)
        if tls is not None and self._wanted is not Lock.CLOSED:
            self._tell(tls)
        self.settle()

    def settle(self) -> None:
        """Envoy may have answered."""
        if not self._is_open or self._wanted is None:
            return
        self._take_answer()
        wanted = Lock.CLOSED if self._is_barred() else self._wanted
        if self._told is wanted:
            if wanted is Lock.OPEN and self._stands(self._now):
                self._forget()
        elif self._told is not Lock.CLOSED:
            self._lock(Lock.CLOSED)
        elif self._stands(self._now):
            self._lock(wanted)

    def _is_barred(self) -> bool:
        """Whether the certificate is refused while callers may still come in as somebody else has told Envoy."""
        return self._is_inherited and self._tls is not None and self._shown is None and self._refused == self._tls

    def again(self) -> None:
        """Something else about the listeners changed, such as tracing."""
        for door in self._all() if self._is_open else ():
            self._put(door)

    def stand(self) -> bool:
        """Whether Envoy has all of them as they were told last."""
        return all(self._stands(each) for each in self._all())

    def in_force(self) -> bool:
        """Whether Envoy has everything that is wanted."""
        secrets = xds_tls.secrets(self._tls) if self._tls and self._wanted is not Lock.CLOSED else ()
        return (
            self._told is self._wanted
            and self.stand()
            and all(self._discovery.holds(xds.SECRET, each) for each in secrets)
        )

    def refusal(self) -> str:
        """Why Envoy does not listen, or ""."""
        return next((why for each in self._all() if (why := self._why(each))), "")

    @property
    def _now(self) -> Door:
        return self._public._replace(lock=self._told)

    def _all(self) -> tuple[Door, ...]:
        return (self._now,) if self._internal is None else (self._internal, self._now)

    def _stands(self, door: Door) -> bool:
        return self._discovery.holds(xds.LISTENER, door.name)

    def _why(self, door: Door) -> str:
        return self._discovery.refusal(xds.LISTENER, door.name)

    def _forget(self) -> None:
        """No key lies around that nobody needs."""
        self._shown = None
        for name in (xds_tls.CERTIFICATE, xds_tls.CALLERS):
            self._discovery.remove(xds.SECRET, name)

    def _take_answer(self) -> None:
        """What Envoy refuses is put back to what it shows, if that is as strict."""
        tls = self._tls
        if tls is None or tls in (self._shown, self._refused) or self._wanted is Lock.CLOSED:
            return
        names = xds_tls.secrets(tls)
        why = next((w for each in names if (w := self._discovery.refusal(xds.SECRET, each))), "")
        if why:
            self._refuse(tls, why)
        elif all(self._discovery.holds(xds.SECRET, each) for each in names):
            self._shown = tls

    def _refuse(self, tls: Tls, why: str) -> None:
        self._refused = tls
        before = self._shown if _lock(self._shown) is self._wanted else None
        shown = "the one before is still shown" if before else "nobody can connect until it is mended"
        _log.error("Envoy refused the certificate or key of the gateway's TLS (%s); %s", why, shown)
        if before is not None:
            self._tell(before)

    def _tell(self, tls: Tls) -> None:
        for name, secret in xds_tls.secrets(tls).items():
            try:
                self._discovery.put(xds.SECRET, name, secret)
            except UserError as error:  # no certificate is this large or odd
                self._refuse(tls, error.message)
                return

    def _lock(self, lock: Lock) -> None:
        self._told = lock
        self._put(self._now)

    def _put(self, door: Door) -> None:
        self._discovery.put(xds.LISTENER, door.name, self._listener(door))


def _url(door: Door, lock: Lock) -> str:
    return addresses.url("http" if lock is Lock.OPEN else "https", door.host, door.port)


def _lock(tls: Tls | None) -> Lock:
    if tls is None:
        return Lock.OPEN
    if not tls.certificate or not tls.key:
        return Lock.CLOSED
    return Lock.MUTUAL if tls.client_ca else Lock.TLS
