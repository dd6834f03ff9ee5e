"""How to install a program on this system, in the words of its own package manager."""

from __future__ import annotations

import shutil

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
