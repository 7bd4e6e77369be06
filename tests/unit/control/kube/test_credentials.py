"""When a program that gives credentials is run, and when what it gave is used again."""

import asyncio

import pytest

from modelyard.base.clock import ManualClock
from modelyard.base.errors import UserError
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.credentials import Credentials, Shown
from modelyard.control.kube.exec_plugin import Credential, Plugin

PLUGIN = Plugin(user="user 'ana'", api_version="client.authentication.k8s.io/v1", command="login")


class Program:
    """Gives tokens one, two and so on; lasts: how long they do."""

    def __init__(self, clock: ManualClock, lasts: float | None) -> None:
        self.runs = 0
        self._clock = clock
        self._lasts = lasts

    async def __call__(self, plugin: Plugin) -> Credential:
        assert plugin is PLUGIN
        self.runs += 1
        mine = self.runs
        await asyncio.sleep(0)
        return Credential(token=f"t{mine}", expires=None if self._lasts is None else self._clock.now() + self._lasts)


def setting(lasts: float | None = None) -> tuple[Credentials, Program, ManualClock]:
    clock = ManualClock()
    program = Program(clock, lasts)
    config = ClientConfig(server="https://x", plugin=PLUGIN)
    return Credentials(config, clock=clock, ask=program), program, clock


def token(shown: Shown) -> str:
    return dict(shown.headers)["Authorization"]


async def test_a_program_is_run_when_it_is_first_needed_and_once_for_all_who_wait() -> None:
    credentials, program, _ = setting()
    assert program.runs == 0
    found = await asyncio.gather(*(credentials.current() for _ in range(5)))
    assert ({token(each) for each in found}, program.runs) == ({"Bearer t1"}, 1)


async def test_it_is_run_again_before_its_credential_ends() -> None:
    credentials, program, clock = setting(lasts=60)
    await credentials.current()
    clock.advance(49)
    assert token(await credentials.current()) == "Bearer t1"
    clock.advance(2)
    assert token(await credentials.current()) == "Bearer t2"
    assert program.runs == 2


async def test_one_whose_credentials_hardly_last_is_not_run_for_every_request() -> None:
    credentials, program, clock = setting(lasts=8)
    for _ in range(3):
        await credentials.current()
    assert program.runs == 1
    clock.advance(8)
    await credentials.current()
    assert program.runs == 2


async def test_it_is_run_again_when_the_server_refuses_what_it_gave() -> None:
    credentials, program, _ = setting()
    first, same = await credentials.current(), await credentials.current()
    assert credentials.refused(first)
    second = await credentials.current()
    assert credentials.refused(same)  # sent before the other one was known
    assert [token(each) for each in (second, await credentials.current())] == ["Bearer t2", "Bearer t2"]
    assert program.runs == 2


async def test_what_has_expired_already_is_told() -> None:
    credentials, _, _ = setting(lasts=-1)
    with pytest.raises(UserError, match="user 'ana': the program login gave a credential that has expired"):
        await credentials.current()


async def test_a_token_makes_the_program_needless() -> None:
    clock = ManualClock()
    program = Program(clock, None)
    config = ClientConfig(server="https://x", plugin=PLUGIN, token="mine", impersonation=(("Impersonate-User", "bo"),))
    credentials = Credentials(config, clock=clock, ask=program)
    shown = await credentials.current()
    assert (shown.headers, program.runs) == ((("Authorization", "Bearer mine"), ("Impersonate-User", "bo")), 0)
    assert not credentials.refused(shown)
