"""Attacks on the lender's files: reading, erasing, writing, and what runs as somebody else."""

from __future__ import annotations

from arena import Arena, Ended
from arena_system import attributes_of, clear_attributes
from attack import attack, driven, plain

# -- reading --

plain(
    "read-ssh-key",
    "read the private key of SSH in the home",
    """Path(G["home"], ".ssh/id_ed25519").read_text()""",
    secrets=("key",),
)
plain(
    "read-documents",
    "read all documents, in the home and elsewhere",
    """
all_of_it = set()
for root in (G["home"], G["documents"]):
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):
                all_of_it |= found(Path(folder, name).read_bytes())
sorted(all_of_it)
""",
    secrets=("document", "key", "profile"),
)
plain(
    "read-profile",
    "read the profile of the lender's cluster",
    """Path(G["home"], ".local/share/p2p_ipython/clusters/profile.json").read_text()""",
    secrets=("profile",),
)
plain(
    "read-through-links",
    "read the home through links in scratch",
    """
key, got = G["home"] + "/.ssh/id_ed25519", set()
for link, to in ((os.link, key), (os.symlink, key), (os.symlink, G["home"])):
    with contextlib.suppress(OSError):
        link(to, "a-link")
        got |= found(Path("a-link").read_bytes() if to == key else Path("a-link/.ssh/id_ed25519").read_bytes())
    with contextlib.suppress(OSError):
        os.unlink("a-link")
sorted(got)
""",
    secrets=("key",),
)
plain(
    "read-through-proc",
    "read the home through /proc/*/root, cwd and fd",
    """
got = set()
for pid in ["self", "1", str(os.getppid()), *(str(pid) for some in G["pids"].values() for pid in some)]:
    for way in ("root" + G["home"], "cwd"):
        with contextlib.suppress(OSError):
            got |= found(Path("/proc", pid, way, ".ssh/id_ed25519").read_bytes())
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd") if pid != "self" else ():
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.stat(f"/proc/{pid}/fd/{fd}").st_mode):
                    got |= found(Path(f"/proc/{pid}/fd/{fd}").read_bytes())
sorted(got)
""",
    secrets=("key", "agentfile", "bystanderfile"),
)
plain(
    "read-descriptors",
    "read through descriptors that the runner inherited",
    """
got = set()
for fd in map(int, os.listdir("/proc/self/fd")):
    with contextlib.suppress(OSError):
        kind = os.fstat(fd).st_mode
        if stat.S_ISREG(kind):
            got |= found(os.pread(fd, 1 << 20, 0))
        elif stat.S_ISDIR(kind):
            up = os.open("../" * 20 + G["home"].lstrip("/") + "/.ssh/id_ed25519", os.O_RDONLY, dir_fd=fd)
            got |= found(os.read(up, 1 << 20))
sorted(got)
""",
    secrets=("key", "agentfile", "document"),
)
plain(
    "open-by-handle",
    "open the private key by its file handle, past its path",
    """
handle = bytes.fromhex(G["handle"])
got = set()
for path in (G["package"], os.getcwd(), "/usr", "/tmp", "/"):
    with contextlib.suppress(OSError):
        place = os.open(path, os.O_RDONLY)
        got |= found(os.read(checked(libc.open_by_handle_at(place, handle, os.O_RDONLY)), 1000))
sorted(got)
""",
    secrets=("key",),
)


@attack("read-shadow", "read /etc/shadow", """Path("/etc/shadow").read_text()[:500]""")
def _shadow(arena: Arena, ended: Ended) -> str:
    return "read /etc/shadow" if "root:" in ended.told else ""


@attack("stat-paths", "see that a file in the home is there", """os.stat(G["home"] + "/.ssh/id_ed25519").st_size""")
def _stat(arena: Arena, ended: Ended) -> str:
    return "saw a file's size" if ended.value == len(arena.secret("key")) else ""


@attack(
    "see-processes",
    "see which other processes there are",
    """[int(name) for name in os.listdir("/proc") if name.isdigit()]""",
)
def _see(arena: Arena, ended: Ended) -> str:
    # Behind a wall processes have numbers of their own, small ones.
    seen = set(ended.value or ()) & {pid for pids in arena.facts()["pids"].values() for pid in pids if pid > 300}
    return f"saw {len(seen)} processes of the lender's" if seen else ""


@attack(
    "open-devices",
    "open disks, the kernel's memory and its switches (as root)",
    """
opened = []
for path, how in (
    ("/proc/sys/kernel/core_pattern", os.O_WRONLY), ("/proc/sysrq-trigger", os.O_WRONLY), ("/dev/mem", os.O_RDONLY),
    ("/sys/kernel/uevent_helper", os.O_WRONLY), ("/proc/kcore", os.O_RDONLY), ("/dev/kmsg", os.O_WRONLY),
    *((str(disk), os.O_RDONLY) for disk in (*Path("/dev").glob("[vs]d*"), *Path("/dev").glob("nvme*"))),
):
    with contextlib.suppress(OSError):
        os.close(os.open(path, how))
        opened.append(path)
opened
""",
)
def _devices(arena: Arena, ended: Ended) -> str:
    return f"opened {', '.join(ended.value)}" if ended.value else ""


# -- erasing and writing --

plain(
    "erase-home",
    "erase all files of the user's",
    """
for root in (G["home"], G["documents"]):
    for folder, folders, names in os.walk(root, topdown=False):
        for name in names:
            tried(os.unlink, os.path.join(folder, name))
        for name in folders:
            tried(os.rmdir, os.path.join(folder, name))
""",
)
plain(
    "overwrite-documents",
    "overwrite, shorten and rename documents",
    """
home = G["home"]
errors = [
    tried(Path(home, "Documents/thesis.txt").write_text, "encrypted"),
    tried(os.truncate, home + "/Documents/diary.txt", 3),
    tried(os.rename, G["documents"] + "/letters/letter.txt", G["documents"] + "/letters/gone.txt"),
]
str(errors)
""",
)
plain("append-bashrc", "append to .bashrc", """open(G["home"] + "/.bashrc", "a").write("echo here\\n")""")
plain(
    "plant-in-home",
    "create files in the home: authorized_keys, autostart",
    """
for name in (".ssh/authorized_keys", ".config/autostart/here.desktop", ".profile"):
    path = Path(G["home"], name)
    tried(lambda: path.parent.mkdir(parents=True, exist_ok=True))
    tried(path.write_text, "here")
""",
)
plain(
    "change-modes",
    "change modes, owners and times of the user's files",
    """
for name in (".ssh/id_ed25519", ".bashrc", "Documents"):
    path = os.path.join(G["home"], name)
    tried(os.chmod, path, 0o777)
    tried(os.utime, path, (1, 1))
    tried(os.chown, path, os.getuid(), 12345)
""",
)

_SET_ATTRIBUTES = """
import fcntl
readable = struct.pack("<I" + "HHI" * 4, 2, 1, 6, 0xFFFFFFFF, 4, 4, 0xFFFFFFFF, 16, 4, 0xFFFFFFFF, 32, 4, 0xFFFFFFFF)
for path in (G["home"] + "/.ssh/id_ed25519", G["home"] + "/.bashrc", G["package"] + "/errors.py"):
    tried(os.setxattr, path, "user.here", b"here")
    tried(os.setxattr, path, "system.posix_acl_access", readable)
    with contextlib.suppress(OSError), open(path, "rb") as file:
        fcntl.ioctl(file, 0x40086602, struct.pack("l", 0x40))  # FS_IOC_SETFLAGS: never dumped
"""


@driven("change-attributes", "set access lists, attributes and flags of the user's files", _SET_ATTRIBUTES)
def _attributes(arena: Arena, code: str) -> str:
    paths = [str(each) for each in (arena.home / ".ssh/id_ed25519", arena.home / ".bashrc", arena.site)]
    paths[2] += "/p2p_ipython/errors.py"
    before = [attributes_of(path) for path in paths]
    arena.attack(code)
    changed = [path for path, was in zip(paths, before, strict=True) if attributes_of(path) != was]
    for path in changed:
        clear_attributes(path)
    return f"changed attributes of {', '.join(changed)}" if changed else ""


@driven(
    "watch-home",
    "learn names of files in the home as they change",
    """
watch = checked(libc.inotify_init1(os.O_NONBLOCK))
checked(libc.inotify_add_watch(watch, os.fsencode(G["home"] + "/Documents"), 0x100))
print("watching", flush=True)
time.sleep(1)
os.read(watch, 4096)
""",
)
def _watch_home(arena: Arena, code: str) -> str:
    task = arena.begin(code)
    name = arena.secret("document")
    if "watching" in arena.says("watching"):
        (arena.home / "Documents" / name).touch()
    ended = arena.end(task)
    (arena.home / "Documents" / name).unlink(missing_ok=True)
    return arena.leaked(ended, "document") or ("" if not isinstance(ended.value, bytes) else "saw a file change")


for _folder in ("/tmp", "/var/tmp", "/dev/shm"):
    plain(
        f"write-{_folder[1:].replace('/', '-')}",
        f"leave a file in {_folder}",
        f"""Path("{_folder}", G["mark"]).write_text("here")""",
    )
plain(
    "write-pth",
    "leave a .pth file in the environment, which runs in every Python there",
    """Path(G["site"], "here.pth").write_text("import os")""",
)
plain(
    "write-customize",
    "leave usercustomize and sitecustomize",
    """
for folder in (G["user_site"] + "/site-packages", G["site"]):
    path = Path(folder)
    tried(lambda: path.mkdir(parents=True, exist_ok=True))
    for name in ("usercustomize.py", "sitecustomize.py"):
        tried((path / name).write_text, "")
""",
)
plain(
    "patch-package",
    "change the package's own code and bytecode",
    """
tried(lambda: open(G["package"] + "/errors.py", "a").write("\\n"))
for path in Path(G["package"], "__pycache__").glob("errors.*"):
    tried(path.write_bytes, path.read_bytes() + b"x")
tried(Path(G["site"], "../../../bin/p2p").write_text, "")
""",
)
plain("run-setuid", "run a set-user-id program", """os.spawnv(os.P_WAIT, G["setuid"], ["touch", G["root_only"]])""")


@attack(
    "make-setuid",
    "leave a program that runs as its owner",
    """
for folder in (os.getcwd(), os.environ.get("TMPDIR", "/tmp")):
    path = Path(folder, G["mark"])
    path.write_bytes(b"#!/bin/sh\\n")
    tried(path.chmod, 0o6755)
""",
)
def _setuid(arena: Arena, ended: Ended) -> str:
    return "left a set-user-id program" if arena.set_id_files() else ""


@driven(
    "links-in-scratch",
    "have the clearing of scratch remove what links in it lead to",
    """
for name, to in (("a", G["home"]), ("b", G["documents"]), ("c", G["documents"] + "/letters/letter.txt")):
    tried(os.symlink, to, name)
    tried(os.symlink, to, os.path.join(os.environ.get("TMPDIR", "/tmp"), name))
here = os.getcwd()
tried(os.rename, here, here + "-moved")
tried(os.symlink, G["documents"], here)
above = os.path.dirname(here)
tried(os.rename, above, above + "-moved")
tried(os.symlink, G["documents"], above)
""",
)
def _links(arena: Arena, code: str) -> str:
    arena.attack(code)
    return "" if arena.next_member().over else "the next member's task doesn't end"
