"""Takes the network away from a Python process; loopback and unix sockets stay.

Python imports a module of this name when it starts, so with this folder on PYTHONPATH every
subprocess of the tests is offline too. An audit hook also sees sockets that no Python code
opened and cannot be undone; the error is the one an unplugged machine gives.
"""

import errno
import os
import sys

OWN_ADDRESS = "LOWMEM_RL_OWN_ADDRESS"
"""Where a test names this machine's own address: Ray's processes reach each other there, not over loopback."""
REACHES_OUT = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}


def refuse_network(event, args):
    """Raises `OSError` where a socket event names a host other than this one."""
    if event not in REACHES_OUT:
        return
    host = _host(event, args)
    if not _is_here(host):
        raise OSError(errno.ENETUNREACH, f"The tests have no network: {event} to {host!r} refused")


def _host(event, args):
    """Returns the host an event names, or None where it names none (unix sockets, connected sockets)."""
    if event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        return args[0]
    address = args[1]
    return address[0] if isinstance(address, tuple) and _speaks_ip(args[0]) else None


def _speaks_ip(sock):
    from socket import AF_INET, AF_INET6

    return sock.family in {AF_INET, AF_INET6}


def _is_here(host):
    from ipaddress import ip_address

    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost", os.environ.get(OWN_ADDRESS)}:
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


sys.addaudithook(refuse_network)
