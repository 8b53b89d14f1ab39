"""Two hosts on one machine, as network namespaces joined by a bridge: each has its own address, ports and Ray node.

Needs root and iproute2. Nothing but what it made is touched: processes are found by their namespace, never by name.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

READY_S = 60


@dataclass(frozen=True)
class Host:
    """One namespace with its address; commands run inside it with the environment of the pair."""

    name: str
    address: str
    environment: dict[str, str]

    def run(self, *command: str | Path, timeout: float = 300, check: bool = True) -> subprocess.CompletedProcess[str]:
        inside = ["ip", "netns", "exec", self.name, *map(str, command)]
        done = subprocess.run(
            inside, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode} on {self.name}:\n{done.stdout}")
        return done


def missing() -> str:
    """Why two hosts cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2 (the `ip` command)"
    probe = f"raysl-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True)
    return "" if made.returncode == 0 else f"cannot make network namespaces: {made.stderr.strip()}"


@contextmanager
def two_hosts(folder: Path, **switches: str) -> Iterator[tuple[Host, Host]]:
    """A head and a second host on a network of their own; both see the same disk. `folder` holds the token and home.

    `switches` are variables of their environment."""
    tag, number = f"rsl{os.getpid() % 100_000}", os.getpid() % 250
    environment = _environment(folder) | switches
    hosts = (Host(f"{tag}-1", f"10.211.{number}.1", environment), Host(f"{tag}-2", f"10.211.{number}.2", environment))
    try:
        _ip(f"link add {tag} type bridge", f"addr add 10.211.{number}.254/24 dev {tag}", f"link set {tag} up")
        for index, host in enumerate(hosts, 1):
            _ip(
                f"netns add {host.name}", f"link add {tag}v{index} type veth peer name eth0 netns {host.name}",
                f"link set {tag}v{index} master {tag} up", f"-n {host.name} addr add {host.address}/24 dev eth0",
                f"-n {host.name} link set eth0 up", f"-n {host.name} link set lo up",
                f"-n {host.name} route add default via 10.211.{number}.254",
            )  # fmt: skip
        yield hosts
    finally:
        for host in hosts:
            _kill_all(host)
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)
        subprocess.run(["ip", "link", "delete", tag], capture_output=True)


def start_ray(hosts: Sequence[Host], folder: Path, num_cpus: int = 1) -> None:
    """`ray start --head` on the first host, `ray start --address` on the others, with token authentication."""
    head = hosts[0]
    head.run("ray", "get-auth-token", "--generate")
    resources = _resources(num_cpus)
    head.run("ray", "start", "--head", f"--node-ip-address={head.address}", f"--temp-dir={folder}/ray1", "--port=6379",
             "--dashboard-host=0.0.0.0", "--disable-usage-stats", *resources)  # fmt: skip
    for index, host in enumerate(hosts[1:], 2):
        join(host, head, folder / f"ray{index}", num_cpus)
    until = time.monotonic() + READY_S
    while "Total Usage" not in (said := head.run("ray", "status", f"--address={head.address}:6379", check=False).stdout):
        if time.monotonic() > until:
            raise RuntimeError(f"the cluster did not come up:\n{said}")
        time.sleep(1)


def join(host: Host, head: Host, folder: Path, num_cpus: int = 1) -> None:
    """`ray start --address` on a host, also after its processes were killed; `folder` is its own."""
    host.run("ray", "start", f"--address={head.address}:6379", f"--node-ip-address={host.address}",
             f"--temp-dir={folder}", *_resources(num_cpus))  # fmt: skip


def kill(host: Host) -> None:
    """The machine is gone from one moment to the next: SIGKILL to every process on it."""
    for pid in pids(host):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pids(host: Host) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", host.name], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found]


def _resources(num_cpus: int) -> list[str]:
    return [f"--num-cpus={num_cpus}", f"--object-store-memory={150 * 2**20}"]


def _environment(folder: Path) -> dict[str, str]:
    """A home of their own, so that the token is theirs alone."""
    (folder / "home").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return inherited | {
        "HOME": str(folder / "home"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "GLOO_SOCKET_IFNAME": "eth0",  # both hosts have the same host name, by which gloo would look for its address
    }


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)


def _kill_all(host: Host) -> None:
    """At once: asked to end, Ray's processes take 5 s, and nothing of theirs is kept."""
    for _ in range(20):
        kill(host)
        if not pids(host):
            return
        time.sleep(0.25)
