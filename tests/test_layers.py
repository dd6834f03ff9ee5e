"""A block of the package imports only from blocks below it. Read from the source, deferred imports included.

The blocks, lowest first; those on one line don't import one another::

    errors config loop lifeline memory jobs tracing private_files   what everybody may use
    protocol                             who says what when (pure)
    task                                 what travels (pure)
    board | link | sandbox               adapters to the outside
    members                              who is in a cluster: files, invitations, the host
    lending                              the lender's policy and log, and the way to workers here
    worker | client | doctor
    notebook
    cli bench joblib rehearsal

"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2p_ipython

PACKAGE = Path(p2p_ipython.__file__).parent

BASE = {"tracing", "errors", "jobs", "config", "loop", "lifeline", "memory", "private_files"}
MAY_IMPORT = {
    "protocol": BASE,
    "task": BASE | {"protocol"},
    "board": BASE | {"protocol", "task"},
    "link": BASE | {"protocol", "task"},
    "sandbox": BASE | {"protocol", "task"},
    "members": BASE | {"protocol", "task", "board", "link"},
    "lending": BASE | {"protocol"},
    "worker": BASE | {"protocol", "task", "board", "link", "members", "sandbox", "lending"},
    "client": BASE | {"protocol", "task", "board", "link", "members", "sandbox"},
    "notebook": BASE | {"protocol", "task", "board", "link", "members", "client", "lending"},
    "rehearsal": BASE | {"protocol", "task", "board", "link", "sandbox", "members", "client", "worker"},
    "bench": BASE | {"client"},
    "joblib": {"client"},
    "doctor": BASE | {"protocol", "board", "link"},
    "__main__": {"cli"},
    "cli": BASE
    | {"protocol", "board", "link", "members", "lending", "worker", "client", "bench", "doctor", "__version__"},
    "errors": set(),
    "config": {"errors"},
    "loop": {"errors"},
    "lifeline": {"errors"},
    "memory": set(),
    "jobs": set(),
    "tracing": {"errors"},
    "private_files": set(),
}

# The names by which the package itself gives access to the layers above (see its __init__).
ENTRY = {"client", "notebook", "errors", "task"}

# What talks to the outside world, or takes long to import, has no place in the layers that decide.
IMPURE = {"asyncio", "socket", "ssl", "threading", "subprocess", "paramiko", "asyncssh", "twisted", "wormhole"}


def modules() -> dict[str, Path]:
    """All modules of the package, by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Yield each (module imported, line), wherever in the file it is imported. ``from package import name`` gives
    the submodule where ``name`` is one."""
    path = MODULES[module]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: this package imports by full names"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                is_name_of_package = node.module == "p2p_ipython"
                yield (submodule if submodule in MODULES or is_name_of_package else node.module), node.lineno


def block(module: str) -> str:
    """p2p_ipython.board.client.ssh → board"""
    return module.split(".")[1]


@pytest.mark.parametrize("module", [m for m in MODULES if m != "p2p_ipython"])
def test_a_module_imports_only_from_blocks_below_its_own(module: str) -> None:
    own = block(module)
    wrong = [
        f"line {line}: {imported}"
        for imported, line in imports(module)
        if imported.split(".")[0] == "p2p_ipython"
        and (imported == "p2p_ipython" or block(imported) not in MAY_IMPORT[own] | {own})
    ]
    assert not wrong


def test_every_block_has_its_place() -> None:
    assert {block(m) for m in MODULES if m != "p2p_ipython"} <= set(MAY_IMPORT)


def test_the_order_of_blocks_has_no_circle() -> None:
    rest = {name: {b for b in below if b in MAY_IMPORT} for name, below in MAY_IMPORT.items()}
    while rest:
        free = {name for name, below in rest.items() if not below & set(rest)}
        assert free, f"these import one another: {sorted(rest)}"
        rest = {name: below for name, below in rest.items() if name not in free}


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Also not for types only: a circle hides which of two modules is the lower one."""
    rest = {module: {i for i, _ in imports(module) if i in MODULES and i != module} for module in MODULES}
    while rest:
        free = {module for module, below in rest.items() if not below & rest.keys()}
        assert free, f"these are in circles, or above one: {sorted(rest)}"
        rest = {module: below for module, below in rest.items() if module not in free}


def test_the_package_itself_only_points_to_its_public_names() -> None:
    assert {block(m) for m, _ in imports("p2p_ipython") if m.startswith("p2p_ipython.")} <= ENTRY


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("p2p_ipython.protocol.")])
def test_the_protocol_decides_and_does_nothing(module: str) -> None:
    assert not {name.split(".")[0] for name, _ in imports(module)} & IMPURE


def test_the_runner_loads_nothing_that_talks_to_others() -> None:
    """The runner is the process that executes tasks: it must not hold what could reach a board or a link."""
    reached, allowed = set(), {"IPython", "cloudpickle", "psutil", "traitlets", "matplotlib_inline", "matplotlib"}
    waiting = ["p2p_ipython.sandbox.inside.runner"]
    foreign: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        for imported, line in imports(module):
            top = imported.split(".")[0]
            if imported in MODULES:
                waiting.append(imported)
            elif top not in sys.stdlib_module_names and top not in allowed and not _is_clients(module, top):
                foreign.add(f"{module}:{line} {imported}")
    assert not foreign
    ours = {block(module) for module in reached}
    assert ours <= {"sandbox", "protocol", "task", "errors", "memory"}
    assert {m for m in reached if block(m) == "protocol"} <= {
        f"p2p_ipython.protocol.{name}" for name in ("frames", "packages", "rules", "task_frames")
    }


SIDES = {"p2p_ipython.sandbox.inside": "p2p_ipython.sandbox.mechanisms"}
SIDES |= {there: here for here, there in SIDES.items()}


@pytest.mark.parametrize(("here", "there"), SIDES.items())
def test_the_two_sides_of_a_sandboxs_wall_import_nothing_of_each_other(here: str, there: str) -> None:
    """A mechanism starts what is inside by name only, and what is inside doesn't know which mechanism it is in."""
    own = [module for module in MODULES if module.startswith(f"{here}.")]
    assert own
    assert not {f"{m}: {name}" for m in own for name, _ in imports(m) if f"{name}.".startswith(f"{there}.")}


def _is_clients(module: str, imported: str) -> bool:
    # blake3 names buffers in the client's store, and tqdm draws bars at home; they are imported there when needed.
    return (module, imported) in {("p2p_ipython.task.buffer_store", "blake3"), ("p2p_ipython.task.progress", "tqdm")}
