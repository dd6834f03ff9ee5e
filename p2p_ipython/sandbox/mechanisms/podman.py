"""The mechanism "podman": a container of podman's for each runner, without an image and without a daemon.

An ordinary user's container has user ids of its own, where the user's own id is the runner's and root is none of this
machine's. Root's container runs as a user id that nobody else has. Everything that podman keeps is in the runner's
scratch folder: the user's own containers and settings are neither read nor changed.

Linux, with podman 4.3 or later; see podman-run(1). For an ordinary user newuidmap (uidmap), for root unshare
(util-linux) as well.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
from pathlib import Path

from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.launch import LaunchOptions, Missing
from p2p_ipython.sandbox.mechanisms.accounts import memory_below
from p2p_ipython.sandbox.mechanisms.containers import ContainerLaunch, Engine
from p2p_ipython.sandbox.mechanisms.contents import Container
from p2p_ipython.sandbox.mechanisms.ids import stranger
from p2p_ipython.sandbox.mechanisms.install import install_with
from p2p_ipython.sandbox.mechanisms.shown import FIRST

_CGROUPS = Path("/sys/fs/cgroup/cgroup.controllers")
"""Is there where cgroups are those of version 2 alone."""

_SETTINGS = '[engine]\nlock_type = "file"\nevents_logger = "none"\n'
"""What containers.conf(5) says, in place of the system's and the user's: nothing is kept outside our folder."""

_AND_END = '"$@"; code=$?; { kill -9 "$(cat "$0")"; } 2>/dev/null; exit $code'
"""A shell's words for a command of podman's. Of an ordinary user's, podman leaves a process that keeps the user ids."""

LEAVES = ""


def prepare(options: LaunchOptions) -> ContainerLaunch:
    """Make what starts a runner in a container. Raises ``OSError``, and ``ConfigError`` as ``python_files`` does."""
    return ContainerLaunch(options, stranger(), _engine, cgroup=os.geteuid() == 0)


def _engine(container: Container) -> Engine:
    root = os.geteuid() == 0
    own = container.folder / "podman"
    own.mkdir()
    settings = own / "containers.conf"
    settings.write_text(_SETTINGS)
    podman = [shutil.which("podman") or "podman", "--log-level", "error", "--storage-driver", "vfs"]
    podman += ["--root", str(own / "root"), "--runroot", str(own / "run"), "--tmpdir", str(own / "tmp")]
    pid, name = container.folder / "pid", f"p2p-{secrets.token_hex(8)}"
    words = [*container.common_words(), "--name", name, "--pidfile", str(pid), "--read-only-tmpfs=false"]
    words += ["--http-proxy=false", "--unsetenv-all", "--detach-keys", "", "--systemd=false", "--no-hosts"]
    words += ["--passwd=false", *_ids(container), *_groups(container, root=root), *_runtime(container, root=root)]
    command = [*podman, "run", *words, "--rootfs", str(container.root), *FIRST]
    return Engine(
        guarded={
            "command": command if root else ["/bin/sh", "-c", _AND_END, str(own / "tmp" / "pause.pid"), *command],
            "end": [*podman, "rm", "--force", "--time", "0", "--ignore", name],
        },
        environment={"HOME": str(own), "XDG_RUNTIME_DIR": str(own), "CONTAINERS_CONF": str(settings)},
        usage=lambda _guard, shared_once: _usage(pid, shared_once=shared_once),
        # What root's podman mounts is gone when its last process is.
        before=(shutil.which("unshare") or "unshare", "--mount", "--propagation", "private", "--") if root else (),
    )


def _ids(container: Container) -> list[str]:
    return ["--userns", "keep-id"] if os.geteuid() else ["--user", "{}:{}".format(*container.user)]


def _groups(container: Container, *, root: bool) -> list[str]:
    """Return the arguments for the groups that may open graphics cards: an ordinary user's container keeps theirs."""
    graphics = container.options.graphics
    groups = graphics.groups() if graphics is not None else ()
    if not root:
        return ["--group-add", "keep-groups"] if groups else []
    return [f"--group-add={group}" for group in groups]


def _runtime(container: Container, *, root: bool) -> list[str]:
    """Return the arguments for cgroups. Only root is sure to have one; and crun refuses a mixture of both versions."""
    mixed = [] if _CGROUPS.exists() else ["--runtime", "runc"]
    if root:
        return [*mixed, *container.cgroup_words()]
    return mixed or ["--runtime", "crun", "--cgroups", "disabled"]


def _usage(file: Path, *, shared_once: bool) -> int:
    """Return what the container's first process, whose id is in a file, and all below it occupy; 0 if there is none."""
    with contextlib.suppress(OSError, ValueError):
        return memory_below(int(file.read_text()), shared_once=shared_once)
    return 0


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("podman's containers need Linux")
    if not seccomp.supported():
        return Missing("there is no filter of system calls for this machine's processor")
    root = os.geteuid() == 0
    if shutil.which("podman") is None:  # which version it is can't be asked without leaving folders of its own
        return Missing("podman is not installed", install_with("podman"))
    if not root and shutil.which("newuidmap") is None:
        return Missing("newuidmap is not installed, which podman needs", install_with("uidmap"))
    if root and shutil.which("unshare") is None:
        return Missing("unshare is not installed, which root needs", install_with("util-linux"))
    runtime = "runc" if not _CGROUPS.exists() else "crun"
    if (not root or runtime == "runc") and shutil.which(runtime) is None:
        return Missing(f"{runtime} is not installed, which podman needs here", install_with(runtime))
    return None
