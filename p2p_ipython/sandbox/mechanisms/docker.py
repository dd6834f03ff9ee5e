"""The mechanism "docker": a container of Docker's for each runner, from an image that holds nothing but empty folders.

The image is made at the first start; no registry is asked. A runner has a user id that nobody else has, and what its
container uses is bounded by a cgroup. The user has to be one who may use Docker, and so is as good as root already.

Linux, with an engine on this machine that runs as root; see docker-run(1).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path

from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.launch import LaunchOptions, Missing
from p2p_ipython.sandbox.mechanisms.accounts import memory_of
from p2p_ipython.sandbox.mechanisms.containers import ContainerLaunch, Engine
from p2p_ipython.sandbox.mechanisms.contents import Container
from p2p_ipython.sandbox.mechanisms.ids import any_stranger
from p2p_ipython.sandbox.mechanisms.install import install_with
from p2p_ipython.sandbox.mechanisms.leftovers import mark
from p2p_ipython.sandbox.mechanisms.shown import FIRST

_LABEL = "p2p-ipython.scratch"
"""What a container is labelled with: the scratch folder of its runner."""

_SOCKET = Path("/var/run/docker.sock")

_CGROUPS = (
    "/sys/fs/cgroup/system.slice/docker-{}.scope",
    "/sys/fs/cgroup/docker/{}",
    "/sys/fs/cgroup/memory/docker/{}",
    "/sys/fs/cgroup/memory/system.slice/docker-{}.scope",
)
"""Where a container's cgroup may be: versions 2 and 1, kept by systemd or by docker."""

_COUNTED = ({"anon", "file_mapped"}, {"total_rss", "total_mapped_file"})
"""What of them is a process's memory, and not files: in version 2, and in version 1."""

LEAVES = ""


def prepare(options: LaunchOptions) -> ContainerLaunch:
    """Make what starts a runner in a container. Raises ``OSError``, and ``ConfigError`` as ``python_files`` does."""
    # What tasks write to the lender's own folders is to be the lender's, as behind other mechanisms.
    own = bool(options.mounts) and os.geteuid() != 0
    return ContainerLaunch(options, None if own else any_stranger(), _engine, counted=not own, cgroup=True)


def _engine(container: Container) -> Engine:
    docker = [shutil.which("docker") or "docker", "--host", _host()]
    graphics = container.options.graphics
    name, known = f"p2p-{secrets.token_hex(8)}", container.folder / "id"
    entries = sorted((place.name, place.is_symlink() and os.readlink(place)) for place in container.root.iterdir())
    image = f"p2p-ipython-empty:{hashlib.sha256(repr(entries).encode()).hexdigest()[:16]}"
    words = [*container.common_words(), *container.cgroup_words(), "--name", name, "--cidfile", str(known)]
    words += [f"--group-add={group}" for group in (graphics.groups() if graphics is not None else ())]
    words += ["--label", f"{_LABEL}={mark(container.folder)}", "--user", "{}:{}".format(*container.user)]
    form = f'{{{{.ID}}}} {{{{.Label "{_LABEL}"}}}}'
    return Engine(
        guarded={
            "command": [*docker, "run", *words, image, *FIRST],
            "end": [*docker, "rm", "--force", name],
            "image": [docker, image, str(container.root)],
            "labelled": [*docker, "ps", "--all", "--no-trunc", "--filter", f"label={_LABEL}", "--format", form],
            "forget": [*docker, "rm", "--force"],
        },
        environment={"HOME": str(container.folder)},  # the user's settings may name proxies, with passwords
        usage=lambda _guard, shared_once: _usage(known, shared_once=shared_once),
    )


def _usage(known: Path, *, shared_once: bool) -> int:
    """Return what the container occupies, whose id is in a file; 0 if nothing is known.

    Only root can tell what a container's processes share. For others the cgroup's own accounts do, seconds late.
    """
    with contextlib.suppress(OSError):
        name = known.read_text()
        for cgroup in (Path(place.format(name)) for place in _CGROUPS):
            with contextlib.suppress(OSError):
                pids = [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]
                if used := memory_of(pids, shared_once=shared_once):
                    return used
                lines = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
                return max(sum(int(lines.get(each, 0)) for each in counted) for counted in _COUNTED)
    return 0


def _host() -> str:
    """Return where the engine is asked."""
    return os.environ.get("DOCKER_HOST") or f"unix://{_SOCKET}"


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("docker's containers need Linux")
    if not seccomp.supported():
        return Missing("there is no filter of system calls for this machine's processor")
    if shutil.which("docker") is None:
        return Missing("docker is not installed", install_with("docker.io"))
    place = _host()
    if not place.startswith("unix://"):
        return Missing(f"docker's engine is at {place}", "It has to be one on this machine, with a socket.")
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(place.removeprefix("unix://"))
    except OSError as error:
        hint = "Start it: sudo systemctl start docker. The worker's user has to be one who may use it."
        return Missing(f"docker's engine can't be reached at {place} ({error.strerror})", hint)
    return None
