"""Where the gateway listens: which addresses other machines reach, and whether a port is free."""

import errno
import ipaddress
import socket

from modelyard.base.errors import UserError

LOOPBACK = "127.0.0.1"


def host(text: str) -> str:
    """The address to bind. Raises UserError for a name: which of its addresses would be meant changes over time."""
    if text == "localhost":
        return LOOPBACK
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UserError(
            f"--listen {text}: expected an address of this machine, such as {LOOPBACK} (this machine alone), 0.0.0.0 "
            "(all of its networks), or [::]"
        ) from None


def is_loopback(bound: str) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(bound).is_loopback


def url(scheme: str, bound: str, port: int) -> str:
    """How callers say it. An address that stands for all networks is no address to call: then the machine's name."""
    if ipaddress.ip_address(bound).is_unspecified:
        bound = socket.gethostname()
    return f"{scheme}://{f'[{bound}]' if ':' in bound else bound}:{port}"


def claimed(bound: str, port: int) -> int:
    """The port, or a free one for 0. Raises UserError when it is taken."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bound, port))
            # Binding alone succeeds beside a listener that has set the same option.
            probe.listen()
        except OSError as error:
            raise taken(bound, port, errno.errorcode.get(error.errno or 0, "") + f" {error.strerror}") from error
        return int(probe.getsockname()[1])


def taken(bound: str, port: int, why: str) -> UserError:
    """What to tell when a port or an address cannot be had."""
    if "EADDRNOTAVAIL" in why:
        return UserError(
            f"the gateway cannot listen on {bound}:{port} ({why}): this machine does not have that address; 'ip "
            "address' lists those it has"
        )
    return UserError(
        f"the gateway cannot listen on {bound}:{port} ({why}): stop the program that has the port, or choose another "
        "one with --listen HOST:PORT (port 0: any free one)"
    )
