"""Attacks that take too much: processes, memory, disk, output, time."""

from __future__ import annotations

from arena import MEMORY, OUTPUT_LIMIT, Arena
from attack import driven

# -- bombs --


@driven(
    "fork-bomb",
    "start processes without end (300 at most)",
    """
children = []
try:
    for _ in range(300):
        child = os.fork()
        if child == 0:
            named()
            signal.alarm(20)
            signal.pause()
            os._exit(0)
        children.append(child)
finally:
    time.sleep(0.7)
    for child in children:
        tried(os.kill, child, signal.SIGKILL)
        tried(os.waitpid, child, 0)
""",
)
def _forks(arena: Arena, code: str) -> str:
    with arena.watched() as peaks:
        arena.attack(code)
    if left := arena.survivors():
        return f"left {left} processes"
    return f"had {peaks.processes} processes at a time" if peaks.processes >= 280 else ""


def _bomb(arena: Arena, code: str) -> str:
    with arena.watched() as peaks:
        arena.attack(code)
    most = MEMORY * 3 // 2
    used = {"memory": peaks.memory, "shared memory": peaks.shared, "disk": peaks.disk}
    return "; ".join(f"took {size / MEMORY:.1f} GiB of {name}" for name, size in used.items() if size > most)


driven("memory-bomb", "take 2 GiB of memory, where a task may have 1", """
kept = []
for _ in range(32):
    kept.append(bytearray(b"x") * (64 << 20))
time.sleep(0.3)
""")(_bomb)  # fmt: skip
driven("memory-bomb-of-many", "take 2 GiB of memory in four processes", """
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        named()
        kept = bytearray(b"x") * (512 << 20)
        time.sleep(2)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
""")(_bomb)  # fmt: skip
driven("memory-bomb-shared", "take 2 GiB of memory that is shared, or an anonymous file's", """
import mmap
kept = []
for _ in range(16):
    kept.append(mmap.mmap(-1, 64 << 20))
    kept[-1].write(bytes(64 << 20))
file = os.memfd_create("bomb")
for _ in range(16):
    os.write(file, bytes(64 << 20))
time.sleep(0.3)
""")(_bomb)  # fmt: skip

_FILL = """
folder, block = FOLDER, bytes(1 << 20)
named, total = [], 0
try:
    for number in range(64):
        path = os.path.join(folder, G["mark"] + str(number))
        named.append(path)
        with open(path, "wb", 0) as file:
            if tried(os.posix_fallocate, file.fileno(), 0, 32 << 20) is None:
                total += 32 << 20
                continue
            for _ in range(32):
                total += file.write(block)
finally:
    print(total >> 20)
    time.sleep(0.2)
    for path in named:
        tried(os.unlink, path)
"""
driven("disk-bomb", "fill the disk from scratch (2 GiB)", _FILL.replace("FOLDER", "os.getcwd()"))(_bomb)
driven("shm-bomb", "fill /dev/shm (2 GiB)", _FILL.replace("FOLDER", '"/dev/shm"'))(_bomb)
driven("tmp-bomb", "fill the task's /tmp (2 GiB)", _FILL.replace("FOLDER", 'os.environ.get("TMPDIR", "/tmp")'))(_bomb)


def _flood(arena: Arena, code: str) -> str:
    with arena.watched() as peaks:
        ended = arena.attack(code)
    if ended.output_bytes > 4 * OUTPUT_LIMIT:
        return f"had {ended.output_bytes >> 20} MiB of output passed on, where {OUTPUT_LIMIT >> 20} is the limit"
    return f"had the agent take {peaks.agent >> 20} MiB" if peaks.agent > 256 << 20 else ""


driven("endless-output", "print without end (64 MiB)", """
for _ in range(64):
    print("x" * (1 << 20))
    os.write(1, b"y" * (1 << 20))
""")(_flood)  # fmt: skip
driven("endless-frames", "send output to the agent past the runner's own limit (64 MiB)", """
from p2p_ipython.protocol.task_frames import Output
way = channel()
for _ in range(64):
    way.send(Output(G["task"], 1, "stream", "stdout"), b"x" * (1 << 20))
""")(_flood)  # fmt: skip
driven("huge-result", "announce a result of 10 GB, and send 1 GiB of it", """
from p2p_ipython.protocol.task_frames import ResultChunk
way, block = channel(), bytes(1 << 20)
for number in range(1024):
    way.send(ResultChunk(G["task"], 1, "huge", 10 << 30, number << 20), block)
""")(_flood)  # fmt: skip


def _stubborn(arena: Arena, code: str) -> str:
    task = arena.begin(code)
    if "begun" not in arena.says("begun"):
        return ""
    arena.cancel(task)
    return "" if arena.end(task, 10).over else "can't be cancelled"


driven("endless-loop", "run on, whatever signal comes", """
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
for number in range(1, 65):
    tried(signal.signal, number, signal.SIG_IGN)
print("begun", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    with contextlib.suppress(BaseException):
        while time.monotonic() < end: pass
""")(_stubborn)  # fmt: skip
driven("hold-interpreter", "never give up the interpreter's lock", """
print("begun", flush=True)
ctypes.PyDLL(None).sleep(60)
""")(_stubborn)  # fmt: skip
driven("break-interpreter", "break the interpreter's own names", """
import builtins
print("begun", flush=True)
builtins.len = builtins.isinstance = builtins.print = builtins.open = None
sys.modules.clear()
while True:
    try:
        while True: pass
    except BaseException: pass
""")(_stubborn)  # fmt: skip
