"""The listeners: what Envoy is told when certificates come, change and are refused."""

from typing import Any

import pytest

from modelyard.control.gateway.doors import Doors
from modelyard.control.ir.platform import Tls
from modelyard.control.render import xds
from modelyard.control.render.xds_door import Door, Lock

TLS = Tls(certificate="one", key="1")
RENEWED = Tls(certificate="two", key="2")
MUTUAL = Tls(certificate="one", key="1", client_ca="authority")
CLOSED = Tls(certificate="", key="")
PUBLIC = Door(host="192.0.2.1", port=8080, internal=False, exposed=True)
INTERNAL = Door(name="internal", port=8081)


class Table:
    """Discovery whose client answers when told to."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, str], Any] = {}
        self.acknowledged: dict[tuple[str, str], Any] = {}
        self.refused: dict[tuple[str, str], Any] = {}
        self.locks: list[Lock] = []

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        if self.told.get((kind, name)) != body:
            self.told[kind, name] = body
            if name == "gateway" and kind == xds.LISTENER:
                self.locks.append(body["lock"])

    def remove(self, kind: str, name: str) -> None:
        self.told.pop((kind, name), None)
        self.acknowledged.pop((kind, name), None)

    def holds(self, kind: str, name: str) -> bool:
        return self.acknowledged.get((kind, name)) == self.told.get((kind, name))

    def refusal(self, kind: str, name: str) -> str:
        refused = self.refused.get((kind, name))
        return "no PEM" if refused is not None and refused == self.told.get((kind, name)) else ""

    def answer(self, doors: Doors, *, refusing: str = "") -> None:
        """As Envoy does, until nothing changes."""
        for _ in range(6):
            for place, body in self.told.items():
                if place[0] == xds.SECRET and refusing and refusing in str(body):
                    self.refused[place] = body
                else:
                    self.acknowledged[place] = body
            doors.settle()

    @property
    def certificate(self) -> str:
        return str(self.told[xds.SECRET, "gateway"]["tls_certificate"]["certificate_chain"]["inline_string"])


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def doors(table: Table) -> Doors:
    return Doors(table, lambda door: {"lock": door.lock, "at": (door.host, door.port)})


def test_on_loopback_it_is_open_at_once(table: Table, doors: Doors) -> None:
    doors.open(Door(port=8080), None)
    assert table.locks == [Lock.OPEN]
    assert (doors.url, doors.local_url) == ("http://127.0.0.1:8080",) * 2


def test_other_machines_come_in_only_once_it_is_said_how(table: Table, doors: Doors) -> None:
    doors.open(PUBLIC, INTERNAL)
    table.answer(doors)
    assert table.locks == [Lock.CLOSED]
    assert table.told[xds.LISTENER, "internal"]["lock"] is Lock.OPEN
    doors.aim(None)
    table.answer(doors)
    assert table.locks == [Lock.CLOSED, Lock.OPEN]
    assert (doors.url, doors.local_url) == ("http://192.0.2.1:8080", "http://127.0.0.1:8081")


def test_tls_closes_the_door_before_it_opens_it_again(table: Table, doors: Doors) -> None:
    doors.open(Door(port=8080), None)
    doors.aim(TLS)
    assert table.locks == [Lock.OPEN, Lock.CLOSED], "not before Envoy has closed it"
    assert not doors.in_force()
    table.answer(doors)
    assert table.locks == [Lock.OPEN, Lock.CLOSED, Lock.TLS]
    assert doors.in_force()
    assert doors.url == "https://127.0.0.1:8080"
    doors.aim(MUTUAL)
    table.answer(doors)
    assert table.locks[2:] == [Lock.TLS, Lock.CLOSED, Lock.MUTUAL]


def test_a_renewed_certificate_does_not_touch_the_door(table: Table, doors: Doors) -> None:
    doors.open(Door(port=8080), None)
    doors.aim(TLS)
    table.answer(doors)
    before = list(table.locks)
    doors.aim(RENEWED)
    table.answer(doors)
    assert table.locks == before
    assert table.certificate == "two"


def test_a_refused_renewal_leaves_the_one_before(table: Table, doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    doors.open(Door(port=8080), None)
    doors.aim(TLS)
    table.answer(doors)
    doors.aim(RENEWED)
    table.answer(doors, refusing="two")
    assert table.certificate == "one"
    assert table.locks[-1] is Lock.TLS
    assert "(no PEM); the one before is still shown" in caplog.text
    assert caplog.text.count("no PEM") == 1


def test_a_refused_first_certificate_never_leaves_plain_text(
    table: Table, doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    doors.open(Door(port=8080), None)
    doors.aim(TLS)
    table.answer(doors, refusing="one")
    assert Lock.OPEN not in table.locks[1:]
    assert not doors.in_force()
    assert "nobody can connect until it is mended" in caplog.text
    doors.aim(RENEWED)
    table.answer(doors)
    assert doors.in_force()


def test_without_a_certificate_nobody_can_connect(table: Table, doors: Doors) -> None:
    doors.open(Door(port=8080), None)
    doors.aim(CLOSED)
    table.answer(doors)
    assert table.locks == [Lock.OPEN, Lock.CLOSED]
    assert doors.url == "https://127.0.0.1:8080"


def test_where_tls_is_no_longer_wanted_its_key_is_forgotten(table: Table, doors: Doors) -> None:
    doors.open(Door(port=8080), None)
    doors.aim(MUTUAL)
    table.answer(doors)
    doors.aim(None)
    table.answer(doors)
    assert table.locks[-1] is Lock.OPEN
    assert not [name for kind, name in table.told if kind == xds.SECRET]


def test_what_is_wanted_before_there_is_a_door_counts_from_its_beginning(table: Table, doors: Doors) -> None:
    doors.aim(TLS)
    doors.open(Door(port=8080), None)
    table.answer(doors)
    assert table.locks == [Lock.CLOSED, Lock.TLS]


def test_a_certificate_from_before_plain_text_does_not_come_back(table: Table, doors: Doors) -> None:
    doors.open(Door(port=8080), None)
    for tls in (TLS, None):
        doors.aim(tls)
        table.answer(doors)
    doors.aim(RENEWED)
    table.answer(doors, refusing="two")
    assert not doors.in_force()
    assert table.certificate == "two"


def test_an_authority_that_is_refused_lets_nobody_in(table: Table, doors: Doors) -> None:
    doors.open(Door(port=8080), None)
    doors.aim(TLS)
    table.answer(doors)
    doors.aim(MUTUAL)
    table.answer(doors, refusing="authority")
    assert table.locks[-2:] == [Lock.CLOSED, Lock.MUTUAL]
    assert not doors.in_force()
    doors.aim(TLS)
    table.answer(doors)
    assert doors.in_force()


@pytest.mark.parametrize(("tls", "lock"), [(None, Lock.OPEN), (TLS, Lock.TLS), (MUTUAL, Lock.MUTUAL)])
def test_who_takes_over_open_doors_does_not_close_them(tls: Tls | None, lock: Lock) -> None:
    doors = Doors(table := Table(), lambda door: {"lock": door.lock})
    doors.aim(tls)
    doors.open(PUBLIC, INTERNAL, inherited=True)
    table.answer(doors)
    assert table.locks == [lock]
    assert doors.in_force()


def test_who_takes_over_open_doors_closes_them_when_the_certificate_is_refused() -> None:
    doors = Doors(table := Table(), lambda door: {"lock": door.lock})
    doors.aim(TLS)
    doors.open(PUBLIC, INTERNAL, inherited=True)
    table.answer(doors, refusing="one")
    assert table.locks == [Lock.TLS, Lock.CLOSED]
    doors.aim(RENEWED)
    table.answer(doors)
    assert table.locks == [Lock.TLS, Lock.CLOSED, Lock.TLS]
    assert table.certificate == "two"
