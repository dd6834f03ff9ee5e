"""An arena: a throw-away user with a home, secrets and programs, who lends; and friends' tasks that attack them.

::

    arena (this process, outside) ── lines of JSON ──► worker_side.py ── frames ──► runners
       │                                               bystander.py        (as the user who lends)
       └── looks at files, processes and sockets from outside

``mallory``'s tasks run in the first slot and attack; ``alice``'s task, in the second slot, is a victim. The environment
that runs both sides is a copy of this one's packages in the arena's folder: an attack on it harms nothing real.
All is removed at the end: the user, processes, files, shared memory. Linux only.
"""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from arena_parts import DEADLINE, Peaks, Side, Tree
from arena_system import (
    PREFIX,
    NotOffered,
    address_of_host,
    build_machine,
    compile_package,
    end_processes,
    handle_of,
    has_tracer,
    make_environment,
    memory_of,
    python_for,
    remove_user,
    shared_memory,
    sizes_below,
    state_of,
    sweep,
)
from docker_engine import admit

from p2p_ipython.errors import P2PError
from p2p_ipython.sandbox import launch
from p2p_ipython.sandbox.scratch import lock
from p2p_ipython.task import safe

MECHANISMS = ("process", "bubblewrap", "podman", "apptainer", "landlock", "docker", "firejail", "qemu")
"""Those that this suite knows; ``offered`` says which of them there are."""

USERS = ("user", "root")

MEMORY = 1 << 30
OUTPUT_LIMIT = 1 << 20
_FAULTS = (
    "NameError",
    "AttributeError",
    "TypeError",
    "KeyError",
    "IndexError",
    "SyntaxError",
    "StopIteration",
    "Import",
)
"""Errors that no sandbox causes: an attack that ends with one hasn't been tried."""


def offered(mechanism: str) -> str:
    """Return why there is no such mechanism in this version of the package; "" if there is."""
    return "" if mechanism in launch.MECHANISMS else "this version doesn't have it"


@dataclass
class Ended:
    """How a task ended. ``value`` is what its client could read, ``failure`` why there is none."""

    over: bool
    value: Any = None
    failure: str = ""
    output: str = ""
    output_bytes: int = 0
    chunk_bytes: int = 0

    @property
    def told(self) -> str:
        """All that has come out of the task."""
        return f"{self.value!r} {self.output} {self.failure}"


class Arena:
    """See the module. Use it as a context manager; raises ``NotOffered`` when it can't be here.

    ``mounts``: the worker shares two folders, and a project without its dot files. ``network``: it is in a network of
    its own (``lender_network.py``), and gives tasks the internet.
    """

    def __init__(self, mechanism: str, user: str, *, mounts: bool = False, network: bool = False) -> None:
        if sys.platform != "linux":
            raise NotOffered("the arena needs Linux")
        if user == "root" and os.getuid() != 0:
            raise NotOffered("only root can lend as root")
        if why := offered(mechanism):
            raise NotOffered(why)
        self.mechanism = mechanism
        self.user = user
        self._mounts, self._network = mounts, network
        if network and os.getuid() != 0:
            raise NotOffered("only root can make a network for a lender")
        self.mark = "p2pa" + secrets.token_hex(4)
        """The name that attacks give their processes, and what they leave: at most 15 bytes with what follows."""
        self._close = contextlib.ExitStack()
        self._numbers = iter(range(10**9))
        self._secrets: dict[str, str] = {}
        self._alice = ""
        self._mallory = "mallory"
        self._patience = 8 if mechanism == "qemu" else 1  # where QEMU computes each instruction itself

    def __enter__(self) -> Arena:
        try:
            self._build()
            self._start_bystander()
            self._start_worker()
        except BaseException:
            self._close.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    # -- what attacks are prepared with, and judged by --

    def secret(self, name: str) -> str:
        """Return a secret of the lender's, made when first asked for. No attack is told it."""
        return self._secrets.setdefault(name, f"SECRET-{name}-{secrets.token_hex(8)}")

    def leaked(self, ended: Ended, *names: str) -> str:
        """Say which of the secrets came out of a task."""
        out = [name for name in names if self.secret(name) in ended.told]
        return f"read the secret of {', '.join(out)}" if out else ""

    def facts(self) -> dict[str, Any]:
        """Return what an attack may know, or find out: names, paths, ports, process ids and addresses."""
        other = self.processes_of(1)
        return {
            "home": str(self.home),
            "documents": str(self.documents),
            "site": str(self.site),
            "user_site": str(self.home / ".local/lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"),
            "package": str(self.site / "p2p_ipython"),
            "mark": self.mark,
            "machine": platform.machine(),
            "setuid": str(self.setuid),
            "root_only": str(self.root_only / self.mark),
            "sockets": self._sockets,
            "pids": {"agent": [self.agent.process.pid], "bystander": [self._bystander.process.pid], "runner": other},
            "addresses": {
                "agent": self._agent_address,
                "bystander": self._bystander_address,
                "runner": self._alice_address,
            },
            "files": {"agent": self._agent_file, "bystander": self._bystander_file, "runner": -1},
            "alice": self._alice,
            "handle": self._handle,
            "segment": self._segment,
        }

    def attack(self, code: str, *, owner: str = "", **facts: Any) -> Ended:
        """Run an attack as a task to its end, with ``G`` for what it may know."""
        task = self.begin(code, owner=owner, **facts)
        return self.end(task)

    def begin(self, code: str, *, slot: int = 0, owner: str = "", task: str = "", **facts: Any) -> str:
        """Start a task; return its name. An attack is mallory's, unless another ``owner`` is named."""
        task = task or f"task-{self.mark}-{next(self._numbers)}"
        known = {"G": {**(self.facts() if slot == 0 else {}), **facts, "task": task}}
        self._output = ""
        self.agent.take_all(lambda line: line.get("slot") == slot)
        self.agent.say(do="run", slot=slot, id=task, owner=owner or self._mallory, source=code, names=known)
        return task

    def says(self, words: str, deadline: float = DEADLINE) -> str:
        """Wait until mallory's task has printed ``words``, or is over; return all that it has printed."""
        end = time.monotonic() + deadline * self._patience

        def ours(line: dict[str, Any]) -> bool:
            return line["event"] in ("output", "over") and line["slot"] == 0

        while words not in self._output:
            line = self.agent.take(ours, end - time.monotonic(), keep=True)
            if line is None or line["event"] == "over":
                break
            self._output += self.agent.take(ours)["text"]  # type: ignore[index] - it is still there
        return self._output

    def cancel(self, task: str) -> None:
        """Have a task interrupted, and killed if that doesn't help."""
        self.agent.say(do="cancel", slot=0, id=task)

    def end(self, task: str, deadline: float = DEADLINE, slot: int = 0) -> Ended:
        """Wait for a task's end."""
        line = self.agent.take(lambda line: line["event"] == "over" and line["id"] == task, deadline * self._patience)
        output = "".join(
            each["text"]
            for each in self.agent.take_all(lambda line: line["event"] == "output" and line["slot"] == slot)
        )
        output = (self._output if slot == 0 else "") + output
        if line is None:
            return Ended(
                False, failure="the worker has ended" if self.agent_died() else "the task doesn't end", output=output
            )
        value, failure = None, line.get("death") or ""
        if line["ok"] and line["codec"] == "safe":
            try:
                value = safe.decode([tuple(each) for each in line["segments"]], base64.b64decode(line["body"]), {})
            except P2PError as error:
                failure = str(error)
        elif line.get("error"):
            failure = f"{line['error'].get('class', '').removeprefix('builtins.')}: {line['error'].get('message', '')}"
            assert not failure.startswith(_FAULTS), f"the task's code is wrong: {failure}"
        return Ended(True, value, failure, output, line["output"], line["chunks"])

    def serves(self) -> str:
        """Say what is wrong if the worker doesn't do mallory's next task; the next attack finds another worker then."""
        ended = self.end(self.begin("6 * 7"))
        if ended.value == 42:
            return ""
        self.restart_worker()
        return f"the worker no longer serves ({ended.failure or ended.value!r})"

    def next_member(self, code: str = "6 * 7", task: str = "") -> Ended:
        """Run a task of carol's in mallory's slot, which gets a new runner for it."""
        return self.end(self.begin(code, owner="carol", task=task))

    def processes_of(self, slot: int) -> list[int]:
        """Return the processes of a slot's runner, its command first, as they are called out here."""
        self.agent.say(do="look")
        line = self.agent.take(lambda line: line["event"] == "looked")
        command = line["commands"][slot] if line else None
        if command is None:
            return []
        with contextlib.suppress(psutil.Error):
            return [command, *(each.pid for each in psutil.Process(command).children(recursive=True))]
        return []

    def survivors(self, within: float = 3.0) -> int:
        """Return how many processes of attacks live, when they have had ``within`` seconds to end."""
        end = time.monotonic() + within
        while True:
            alive = len(self._marked())
            if not alive or time.monotonic() > end:
                return alive
            time.sleep(0.05)

    def agent_died(self) -> bool:
        return self.agent.process.poll() is not None

    def kill_agent(self) -> None:
        """Kill the worker by force, as the system may."""
        self.agent.process.kill()
        self.agent.process.wait()

    @contextlib.contextmanager
    def watched(self) -> Iterator[Peaks]:
        """Note the most that the runners use at a time, and the agent; what was there before isn't counted."""
        peaks, over = Peaks(), threading.Event()
        first = sizes_below(self.agent.process.pid)
        shared, agent, disk = shared_memory(), self._agent_memory(), self._scratch_size()

        def look() -> None:
            while True:
                sizes = sizes_below(self.agent.process.pid)
                peaks.processes = max(peaks.processes, len(sizes) - len(first))
                peaks.memory = max(peaks.memory, sum(sizes) - sum(first))
                peaks.shared = max(peaks.shared, shared_memory() - shared)
                peaks.agent = max(peaks.agent, self._agent_memory() - agent)
                peaks.disk = max(peaks.disk, self._scratch_size() - disk)
                if over.wait(0.05):
                    return

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield peaks
        finally:
            over.set()
            watcher.join()

    @contextlib.contextmanager
    def traced(self) -> Iterator[list[str]]:
        """Note which victims have a tracer meanwhile."""
        found: list[str] = []
        over = threading.Event()
        victims = self.facts()["pids"]

        def look() -> None:
            while not over.wait(0.01):
                for name, pids in victims.items():
                    if name not in found and any(has_tracer(pid) for pid in pids):
                        found.append(name)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield found
        finally:
            over.set()
            watcher.join()

    def set_id_files(self) -> list[str]:
        """Return the files in scratch folders that run as their owner."""
        found = []
        for folder, _, names in os.walk(self.scratch):
            for name in names:
                with contextlib.suppress(OSError):
                    path = os.path.join(folder, name)
                    if os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
                        found.append(path)
        return found

    def harm(self) -> list[str]:
        """Return all that has come to harm outside since the last time, and put it right."""
        found = self._harm_to_files() + self._harm_to_programs() + self._leavings()
        end_processes(self._marked())
        return found

    # -- how it is made --

    def _build(self) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._close.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._close.callback(os.close, lock(self.folder))
        self.folder.chmod(0o755)
        self._uid, self._gid = os.getuid(), os.getgid()
        name = "root" if self.user == "root" else "lender"
        if self.user == "user" and os.getuid() == 0:
            name = self.mark
            self._close.callback(remove_user, name)
            self._run("useradd", "--no-create-home", "--home-dir", str(self.folder / "home" / name), name)
            self._uid, self._gid = (int(self._run("id", flag, name)) for flag in ("-u", "-g"))
            if self.mechanism == "docker":
                admit(self._uid)
        self._name = name
        self._close.callback(self._end_all)
        python = python_for(self._uid)
        self.home = self.folder / "home" / name
        self.documents = self.folder / "documents"
        self.scratch = self.folder / "scratch"
        self.root_only = self.folder / "root-only"
        self.code = self.folder / "code"
        self.cache = self.folder / "cache"
        self.read_only, self.shared = self.folder / "data", self.folder / "shared"
        self.project = self.folder / 'project "1", of 2'
        self.log = self.folder / "worker.log"
        self.heard = self.folder / "heard.log"
        self.cache.mkdir()
        shared = (self.read_only, self.shared, self.project)
        for each in (self.home, self.documents, self.scratch, self.root_only, self.code, *shared):
            each.mkdir(parents=True)
        self.root_only.chmod(0o700)
        (self.folder / "home").chmod(0o755)
        self.home.chmod(0o700)
        self.scratch.chmod(0o1777)
        for each in (self.shared, self.project):
            each.chmod(0o777)  # for tasks of root's, too
        (self.read_only / "table.csv").write_text("1,2\n")
        (self.project / ".git").mkdir()
        for name in (".env", ".git/config", "data.txt"):
            (self.project / name).write_text(self.secret(name))
        for script in ("worker_side.py", "bystander.py", "lender_network.py"):
            shutil.copy(Path(__file__).parent / script, self.code / script)
        self.python, self.site = make_environment(self.folder / "env", python)
        self._fill_home()
        compile_package(self.python, self.site / "p2p_ipython")
        for owned in (self.home, self.documents, self.shared, self.folder / "env", self.cache):
            for path in (owned, *owned.rglob("*")):
                os.chown(path, self._uid, self._gid, follow_symlinks=False)
        self.setuid = self.folder / "env" / "bin" / "touch-as-root"
        touch = shutil.which("touch")
        if os.getuid() == 0 and touch:
            shutil.copy(touch, self.setuid)
            self.setuid.chmod(0o4755)
        self._handle = handle_of(self.home / ".ssh" / "id_ed25519")
        self._trees = [
            Tree(self.home).take(),
            Tree(self.documents).take(),
            Tree(self.site, deep=False).take(),
            Tree(self.site / "p2p_ipython").take(),
            Tree(self.folder / "env" / "bin").take(),
        ]
        if self.mechanism == "qemu":
            build_machine(self.python, self._how())

    def _fill_home(self) -> None:
        for name, text in {
            ".ssh/id_ed25519": self.secret("key"),
            ".ssh/config": "Host *\n",
            ".bashrc": "# the lender's own\n",
            ".aws/credentials": self.secret("document"),
            ".local/share/p2p_ipython/clusters/profile.json": self.secret("profile"),
            "Documents/diary.txt": self.secret("document"),
            "Documents/thesis.txt": "a thesis\n",
        }.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.home / ".ssh").chmod(0o700)
        (self.home / ".ssh" / "id_ed25519").chmod(0o600)
        (self.documents / "letters").mkdir()
        (self.documents / "letters" / "letter.txt").write_text(self.secret("document"))

    def _how(self, **environment: str) -> dict[str, Any]:
        env = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "USER": self._name,
            "SSH_AUTH_SOCK": getattr(self, "_agent_socket", ""),
            "P2P_CACHE": str(self.cache),
            **{name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ},
            **environment,
        }
        how: dict[str, Any] = {"env": env, "cwd": self.home, "start_new_session": True}
        if self._uid != os.getuid():
            how |= {"user": self._uid, "group": self._gid, "extra_groups": []}
        return how

    def _start_bystander(self) -> None:
        """Start another program of the lender's; its agent's socket is in /tmp, where ssh-agent's is."""
        if not hasattr(self, "_agent_socket"):
            sockets = Path(f"/tmp/ssh-{self.folder.name}")
            sockets.mkdir(0o700)
            self._close.callback(shutil.rmtree, sockets, ignore_errors=True)
            os.chown(sockets, self._uid, self._gid)
            self._agent_socket = str(sockets / "agent.1")
        home_agent = self.home / ".gnupg" / "S.gpg-agent"
        self._socket_files = (self._agent_socket, self._agent_socket + "-datagram", str(home_agent))
        for path in self._socket_files:
            Path(path).unlink(missing_ok=True)
        command = [str(self.python), "-I", str(self.code / "bystander.py")]
        self._bystander = Side(command, **self._how(GITHUB_TOKEN=self.secret("environment")))
        self._bystander.say(
            secret=self.secret("bystander"),
            file_secret=self.secret("bystanderfile"),
            segment_secret=self.secret("segment"),
            host=address_of_host(),
            abstract=self.mark,
            agent=self._agent_socket,
            **{"home-agent": str(home_agent)},
        )
        line = self._bystander.take(lambda line: "pid" in line)
        assert line is not None, "the bystander didn't start"
        self._sockets, self._bystander_address, self._bystander_file = line["sockets"], line["address"], line["file"]
        self._segment = line["segment"]
        self._trees[0].take()

    def _start_worker(self) -> None:
        self._output = ""
        command = [str(self.python), "-P", str(self.code / "worker_side.py")]
        how = self._how(GITHUB_TOKEN=self.secret("agentenvironment"))
        if self._network:
            user, group = (how.pop(name, 0) for name in ("user", "group"))
            how.pop("extra_groups", None)
            network = [sys.executable, str(self.code / "lender_network.py"), str(self.heard), str(user), str(group)]
            command = ["unshare", "--net", "--mount", *network, *command]
        with self.log.open("ab") as log:
            self.agent = Side(command, stderr=log, **how)
        self.agent.say(
            mechanism=self.mechanism,
            secret=self.secret("agent"),
            file_secret=self.secret("agentfile"),
            scratch=str(self.scratch),
            memory=MEMORY,
            output_limit=OUTPUT_LIMIT,
            mounts=[f"{self.read_only}", f"{self.shared}:rw"] if self._mounts else [],
            own=str(self.project) if self._mounts and self.mechanism in launch.HIDING else "",
            network=self._network,
        )
        line = self.agent.take(lambda line: line["event"] in ("ready", "refused"), 60 * self._patience)
        if line is None or line["event"] == "refused":
            self.agent.close()
            assert line is not None, (
                f"no worker with {self.mechanism} as {self.user} starts: {self.log.read_text()[-2000:]}"
            )
            raise NotOffered(line["words"])
        self._agent_address, self._agent_file = line["address"], line["file"]
        assert self._start_alice(), f"no task runs with {self.mechanism} as {self.user}: {self.log.read_text()[-2000:]}"

    def _start_alice(self) -> bool:
        """Start alice's task; return whether it has begun."""
        self._alice = self.begin(_ALICE, slot=1, owner="alice", hidden=self.secret("alice").encode().hex())
        line = self.agent.take(
            lambda line: line.get("slot") == 1 and line["event"] in ("output", "over"), 10 * self._patience
        )
        if line is None or line["event"] == "over":
            return False
        self._alice_address = int(line["text"].split()[1])
        return True

    def check_alice(self) -> str:
        """End alice's task; say what is wrong with its result. Start another one."""
        self.agent.say(do="cancel", slot=1, id=self._alice)
        ended = self.end(self._alice, slot=1)
        wrong = (
            "" if ended.value == "alice's own" else f"changed alice's result to {ended.value or ended.failure!r:.99}"
        )
        # After a forged result her real task still runs in that slot.
        if (wrong and not ended.failure) or not self._start_alice():
            self.restart_worker()
        return wrong

    # -- how harm is found --

    def _harm_to_files(self) -> list[str]:
        found = []
        for tree in self._trees:
            if changes := tree.changes():
                found += changes
                tree.restore()
                tree.take()
        for folder in ("/tmp", "/var/tmp", "/dev/shm", str(self.root_only)):
            for path in Path(folder).glob(f"{self.mark}*"):
                found.append(f"created {path}")
                path.unlink()
        return found

    def _harm_to_programs(self) -> list[str]:
        found = []
        self._bystander.say()
        line = self._bystander.take(lambda line: "heard" in line, 3) if self._bystander.process.poll() is None else None
        if line is None:
            found.append("ended another program")
        else:
            found += [f"reached a socket ({each})" for each in line["heard"]]
            found += ["wrote another program's memory"] if line["buffer"] != "the bystander's own" else []
            found += ["changed another program's limits"] if line["limits"] else []
        if line is None or found or not all(Path(each).exists() for each in self._socket_files):
            self._bystander.close()
            self._start_bystander()
        self.agent.say(do="look")
        line = None if self.agent_died() else self.agent.take(lambda line: line["event"] == "looked", 10)
        if line is None:
            found.append("ended the worker")
        elif line["buffer"] != "the agent's own":
            found.append("wrote the agent's memory")
        if line is None or line["buffer"] != "the agent's own":
            self.restart_worker()
        elif self._is_over(1):
            found.append(self.check_alice())
        return found

    def _leavings(self) -> list[str]:
        found = []
        wanted = int.from_bytes(self.mark[-4:].encode(), "little") & 0x7FFFFFFF
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            key, number = line.split()[:2]
            if int(key) & 0xFFFFFFFF == wanted:
                found.append("left shared memory")
                self._run("ipcrm", "shm", number)
        return found

    def restart_worker(self) -> None:
        self.agent.close()
        end_processes(self._marked())
        self._start_worker()

    def _is_over(self, slot: int) -> bool:
        return self.agent.take(lambda line: line["event"] == "over" and line["slot"] == slot, 0, keep=True) is not None

    def _marked(self) -> list[int]:
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith(self.mark) and state_of(pid) != "Z":
                    found.append(pid)
        return found

    def _agent_memory(self) -> int:
        return memory_of(self.agent.process.pid)

    def _scratch_size(self) -> int:
        total = 0
        for folder, _, names in os.walk(self.scratch):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
        return total

    def _end_all(self) -> None:
        """End all that was started, and what of it has got away."""
        for side in ("agent", "_bystander"):
            if hasattr(self, side):
                getattr(self, side).close()
        end_processes(self._marked())
        if hasattr(self, "_trees"):
            self._harm_to_files()
        self._leavings()

    @staticmethod
    def _run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or command[0] == "ipcrm", (command, done.stderr)
        return done.stdout


_ALICE = """
import ctypes, time
own, secret = ctypes.create_string_buffer(b"alice's own", 64), bytearray.fromhex(G["hidden"])
print("address", ctypes.addressof(own), flush=True)
try:
    while True: time.sleep(0.05)
except KeyboardInterrupt:
    pass
own.value.decode("latin-1")
"""
