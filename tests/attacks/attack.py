"""Attacks as the catalogue declares them: the code that a friend's task runs, and the judge of what shows outside.

An attack's code runs as a cell in a runner, after ``PRELUDE``, with ``G`` for what it may know (``Arena.facts``). All
is bounded: the machine survives an attack that succeeds. ``judge`` runs outside, and returns what harm it saw, in
words, or "" if there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from arena import Arena, Ended

Judge = Callable[[Arena, Ended], str]
Drive = Callable[[Arena, str], str]


@dataclass(frozen=True)
class Outcome:
    """What became of an attack, and how that is known."""

    verdict: Literal["stopped", "succeeded", "not tried"]
    why: str = ""


@dataclass(frozen=True)
class Attack:
    """``drive`` runs the code in its own way, and returns the harm; else it is run to its end and judged."""

    name: str
    words: str
    code: str
    judge: Judge
    drive: Drive | None = None
    touches_alice: bool = False


CATALOGUE: dict[str, Attack] = {}


PRELUDE = r'''
import contextlib, ctypes, errno, gc, os, re, resource, signal, socket, stat, struct, sys, threading, time
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
ARM = G["machine"] == "aarch64"

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def system(number, *arguments):
    """Call the kernel."""
    return checked(libc.syscall(ctypes.c_long(number), *arguments))

def named():
    libc.prctl(15, G["mark"].encode(), 0, 0, 0)

def found(data):
    """Return the secrets in bytes; an error, from ``tried``, has none."""
    return {each.decode() for each in re.findall(rb"SECRET-[a-z]+-[0-9a-f]{16}", data if type(data) is bytes else b"")}

def tried(step, *arguments):
    """Return what a step returns, or why it was refused."""
    try:
        return step(*arguments)
    except (OSError, ValueError, MemoryError) as error:
        return error

class Span(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def span(address, length):
    return ctypes.byref(Span(address, length))

def channel():
    """The runner's own way to its agent."""
    return next(each for each in gc.get_objects() if type(each).__name__ == "Channel")

def frame(body=b"", announced=None, **header):
    import json
    head = json.dumps(header).encode()
    return struct.pack(">II", len(head), len(body) if announced is None else announced) + head + body

def daemon(work, ready=lambda: None):
    """Run something in a process that has left its parent, its session and its group."""
    got, put = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            named()
            signal.alarm(60)
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.write(put, b"x")
            try:
                work()
            finally:
                os._exit(0)
        os._exit(0)
    os.read(got, 1)
'''


def attack(
    name: str, words: str, code: str, *, drive: Drive | None = None, alice: bool = False
) -> Callable[[Judge], Judge]:
    """Add an attack to the catalogue; the function that follows is its judge."""

    def add(judge: Judge) -> Judge:
        CATALOGUE[name] = Attack(name, words, code, judge, drive, alice)
        return judge

    return add


def plain(name: str, words: str, code: str, *, secrets: tuple[str, ...] = (), alice: bool = False) -> None:
    """Add an attack whose harm is a secret that came out, or is found by looking at the lender's side."""
    attack(name, words, code, alice=alice)(lambda arena, ended: arena.leaked(ended, *secrets))


def driven(name: str, words: str, code: str) -> Callable[[Drive], Drive]:
    """Add an attack that the function which follows drives."""

    def add(drive: Drive) -> Drive:
        CATALOGUE[name] = Attack(name, words, code, lambda _arena, _ended: "", drive)
        return drive

    return add
