"""A network of two machines: this one, and a network namespace that is joined to it by virtual interfaces."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

needs_network = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="network namespaces are made by root on Linux"
)
_ASK = """
import http.client, json, sys
host, port, path, headers = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
connection = http.client.HTTPConnection(host, port, timeout=5)
try:
    connection.request("POST", path, b"{}", headers)
    answer = connection.getresponse()
    print(json.dumps([answer.status, answer.read().decode(), dict(answer.getheaders())]))
except OSError as error:
    print(json.dumps([0, str(error), {}]))
"""


class Network(NamedTuple):
    """A network of two machines. name: of the other one, address: of this one in it."""

    name: str
    address: str

    async def ask(self, host: str, port: int, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        """What the other machine is answered; status 0: nothing."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", _ASK, host, str(port), path]
        process = await asyncio.create_subprocess_exec(*command, json.dumps(headers), stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        status, body, found = json.loads(out)
        return status, body, {name.lower(): value for name, value in found.items()}


@contextmanager
def two_machines() -> Iterator[Network]:
    """Until left."""
    tag = secrets.token_hex(3)
    name, here, there = f"my-{tag}", f"mya{tag}", f"myb{tag}"
    subnet = f"10.{200 + int(tag[0], 16)}.{int(tag[1:3], 16)}"
    address = f"{subnet}.1"
    steps = [
        f"ip netns add {name}",
        f"ip link add {here} type veth peer name {there} netns {name}",
        f"ip address add {address}/30 dev {here}",
        f"ip link set {here} up",
        f"ip -n {name} address add {subnet}.2/30 dev {there}",
        f"ip -n {name} link set {there} up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for step in steps:
            done = subprocess.run(step.split(), check=False, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"{step}: {done.stderr.strip()}")
        yield Network(name, address)
    finally:
        for step in (f"ip link delete {here}", f"ip netns delete {name}"):
            subprocess.run(step.split(), check=False, capture_output=True)
