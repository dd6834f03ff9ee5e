"""Whether a program is on this system, and how to install it, in the words of the system's own package manager."""

from __future__ import annotations

import re
import shutil
import subprocess

from p2p_ipython.sandbox.launch import Missing

_MANAGERS = {
    "apt-get": "sudo apt-get install {}",
    "dnf": "sudo dnf install {}",
    "pacman": "sudo pacman -S {}",
    "zypper": "sudo zypper install {}",
    "apk": "sudo apk add {}",
    "brew": "brew install {}",
}


def install_with(package: str) -> str:
    """Return the sentence that says how to install ``package``, which most systems call by the same name."""
    for manager, command in _MANAGERS.items():
        if shutil.which(manager):
            return f"Install it: {command.format(package)}"
    return f"Install the package {package} of your system."


def lacks_program(program: str, package: str, oldest: tuple[int, ...]) -> Missing | None:
    """Return why a program can't be used: it isn't installed, or is older than ``oldest``; None if it can."""
    place = shutil.which(program)
    if place is None:
        return Missing(f"{program} is not installed", install_with(package))
    said = subprocess.run([place, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    if tuple(map(int, re.findall(r"\d+", said)[: len(oldest)])) < oldest:
        hint = f"Version {'.'.join(map(str, oldest))} or later is needed."
        return Missing(f"{said.partition(chr(10))[0].strip() or place} is too old", hint)
    return None
