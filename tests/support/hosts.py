"""Two hosts on this machine: namespaces of their own for network, processes, mounts and names, a cable between them, an sshd in each."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ADDRESSES: Mapping[str, str] = {"a": "10.213.77.1", "b": "10.213.77.2"}
SECONDS = 20

#: What each host does first; all that it changes is its own, and gone when it ends.
START = """
set -e
mount -t tmpfs none /run
mkdir /run/sshd
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/ssh_config /etc/ssh/ssh_config
hostname {name}
ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip address add {address}/24 dev eth0
ip link set eth0 up
exec {sshd} -D -e -f {folder}/sshd_config
"""


def missing() -> str | None:
    """What this machine lacks; None where two hosts can be made."""
    if os.geteuid() != 0:
        return "only root may make namespaces"
    lacking = [name for name in ("ip", "nsenter", "ssh", "ssh-keygen", "sshd", "unshare") if _program(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)} (Debian: iproute2, openssh-server)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    return f"namespaces are refused: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True)
class Host:
    """A host: its name, and the first process in its namespaces."""

    name: str
    init: psutil.Process

    def command(self, folder: Path, *words: object) -> list[str]:
        """A command line that runs another one on this host, in a folder."""
        inside = f"cd {shlex.quote(str(folder))} && exec {shlex.join(map(str, words))}"
        return ["nsenter", "-t", str(self.init.pid), "--net", "--mount", "--uts", "--pid", "sh", "-c", inside]

    def is_of(self, process: psutil.Process) -> bool:
        """Whether a process runs on this host."""
        return Path(f"/proc/{process.pid}/ns/net").readlink() == Path(f"/proc/{self.init.pid}/ns/net").readlink()

    def cut_off(self) -> None:
        """Pull its cable: from now on nothing arrives, and nobody is told."""
        subprocess.run(self.command(Path("/"), "ip", "link", "set", "eth0", "down"), check=True)


@contextmanager
def two_hosts(folder: Path) -> Iterator[dict[str, Host]]:
    """Hosts ``a`` and ``b``, each of which the other reaches by ssh under that name; gone with the context, with all that runs on them.

    Args:
        folder: for their configuration; it is made. The hosts see this machine's files.
    """
    folder.mkdir()
    for key in ("host_key", "identity"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
    # ssh itself never notices that a host is gone, and the launcher would wait for it; the ranks are to notice first, and say so
    alive = "  ServerAliveInterval 5\n  ServerAliveCountMax 3\n  ConnectTimeout 5\n"
    login = f"  IdentityFile {folder}/identity\n  UserKnownHostsFile {folder}/known_hosts\n"
    (folder / "ssh_config").write_text(f"Host *\n{login}{alive}")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/identity.pub\nStrictModes no\nPasswordAuthentication no\n"
    )
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(_host(name, folder)) for name in ADDRESSES}
        cable = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(hosts["b"].init.pid)]
        subprocess.run(["nsenter", "-t", str(hosts["a"].init.pid), "--net", *cable], check=True)
        for name, host in hosts.items():
            (other,) = set(hosts) - {name}
            _wait_for_ssh(host, other)
        yield hosts


@contextmanager
def _host(name: str, folder: Path) -> Iterator[Host]:
    start = START.format(folder=folder, name=name, address=ADDRESSES[name], sshd=_program("sshd"))
    spaces = ["--net", "--mount", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child"]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(["unshare", *spaces, "sh", "-c", start], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + SECONDS
        while not (children := psutil.Process(process.pid).children()):
            assert time.monotonic() < deadline, f"host {name} did not start"
            time.sleep(0.05)
        yield Host(name, children[0])
    finally:
        process.kill()  # and with it the first process of the host, and with that all others
        process.wait()


def _wait_for_ssh(host: Host, other: str) -> None:
    options = ["-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=2"]
    deadline = time.monotonic() + SECONDS
    while True:
        tried = subprocess.run(
            host.command(Path("/"), "ssh", *options, other, "true"), capture_output=True, text=True, check=False
        )
        if tried.returncode == 0:
            return
        assert time.monotonic() < deadline, f"{other} cannot be reached from {host.name}: {tried.stderr}"
        time.sleep(0.2)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
