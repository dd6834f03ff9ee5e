"""The mechanism "apptainer": a container of Apptainer's for each runner, without an image, as on computing clusters.

Apptainer can't bound a folder in memory. So its command runs in namespaces that unshare makes before. The scratch
folder and /dev/shm are mounted there, and shown in the container. Apptainer has no daemon, and its processes are below
the guard. Root's container is made by a user id that nobody else has, which must be able to reach Python. Its options
for graphics cards show all of a maker; variables name those of the slot.

Linux, with apptainer 1.2 or later, unshare and mount (util-linux); see apptainer-exec(1). For root setpriv as well.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.graphics import AMD, NVIDIA
from p2p_ipython.sandbox.launch import LaunchOptions, Missing
from p2p_ipython.sandbox.mechanisms.accounts import memory_below
from p2p_ipython.sandbox.mechanisms.containers import ContainerLaunch, Engine
from p2p_ipython.sandbox.mechanisms.contents import Container
from p2p_ipython.sandbox.mechanisms.ids import as_stranger, root_lacks, stranger
from p2p_ipython.sandbox.mechanisms.install import install_with
from p2p_ipython.sandbox.mechanisms.python_files import closed_above, out_of_reach
from p2p_ipython.sandbox.mechanisms.shown import FIRST, SCRATCH, SHARED_MEMORY

LEAVES = ""


def prepare(options: LaunchOptions) -> ContainerLaunch:
    """Make what starts a runner in a container. Raises ``OSError``, and ``ConfigError`` as ``python_files`` does.

    So it does for a mount that root's runner, which makes the container, can't reach.
    """
    for mount in options.mounts:
        if (closed := closed_above(Path(mount.path))) is not None:
            raise ConfigError(
                f"apptainer can't share {mount.path}: only root can enter {closed}",
                hint="Run the worker as another user, use bubblewrap, or share a folder that all can reach.",
            )
    return ContainerLaunch(options, stranger(), _engine)


def _engine(container: Container) -> Engine:
    other = None if container.user == (os.getuid(), os.getgid()) else container.user[0]
    own, disk, shared = (container.folder / name for name in ("apptainer", "disk", "shm"))
    # Apptainer wants to know its user by name.
    mounts = [f"mount --bind {shlex.quote(str(container.folder / name))} /etc/{name}" for name in ("passwd", "group")]
    own.mkdir()
    for folder, size in ((disk, container.options.disk), (shared, SHARED_MEMORY)):
        folder.mkdir()
        words = ["-t", "tmpfs", "-o", f"nosuid,nodev,mode=1777,size={size}", "tmpfs", str(folder)]
        mounts.append(f"mount {shlex.join(words)}")
    apptainer = [shutil.which("apptainer") or "apptainer", "--silent", "exec", "--userns", "--containall", "--cleanenv"]
    apptainer += ["--no-privs", "--no-eval", "--no-mount", "home,bind-paths,cwd,sys", "--hostname", "sandbox"]
    apptainer += ["--net", "--network", "none", *container.mount_words(), "--pwd", str(SCRATCH)]
    for place, shown in ((disk, str(SCRATCH)), (shared, "/dev/shm")):  # noqa: S108 - in the container
        apptainer += ["--mount", f'type=bind,"src={place}",dst={shown}']
    makers = {card.maker for card in container.options.graphics.cards} if container.options.graphics is not None else ()
    apptainer += [option for maker, option in ((NVIDIA, "--nv"), (AMD, "--rocm")) if maker in makers]
    script = " && ".join([*mounts, 'exec "$@"'])
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-current-user", "--mount", "--keep-caps", "--"]
    command = [*as_stranger(other, container.options), *unshare, "/bin/sh", "-c", script, "sh", *apptainer]
    return Engine(
        guarded={"command": [*command, str(container.root), *FIRST], "end": []},
        environment={"HOME": str(own), "APPTAINER_CONFIGDIR": str(own)},
        usage=lambda guard, shared_once: memory_below(guard, shared_once=shared_once),
        owner=other,
    )


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("apptainer's containers need Linux")
    if not seccomp.supported():
        return Missing("there is no filter of system calls for this machine's processor")
    for program, package in (("apptainer", "apptainer"), ("unshare", "util-linux"), ("mount", "mount")):
        if shutil.which(program) is None:
            return Missing(f"{program} is not installed", install_with(package))
    return root_lacks() or out_of_reach()
