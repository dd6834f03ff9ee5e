"""Why a pickle could not be loaded, in words that say what to do: only a library's own code may be of another version.

An error while loading has one of these causes: something is not there, a library's code raised it, code of the notebook
did, a class takes other arguments than pickle gives it, or the bytes are not those that were sent.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import os
import sys

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MACHINERY = frozenset({"cloudpickle", "pickle", "_pickle", "copyreg", "importlib", "_frozen_importlib", "types"})


def is_absent(error: BaseException) -> bool:
    """Whether ``error`` says that a module, or a name in one, is not there."""
    if isinstance(error, ModuleNotFoundError):
        return True
    return isinstance(error, AttributeError) and not raised_in(error)


def raised_in(error: BaseException) -> str:
    """Return the module whose code raised ``error`` while it was loaded; nothing if only pickle's did."""
    found, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "__main__")  # a namespace that is being loaded has none yet
        file = trace.tb_frame.f_code.co_filename
        if isinstance(module, str) and not file.startswith(_OURS) and module.partition(".")[0] not in _MACHINERY:
            found = module
        trace = trace.tb_next
    return found


def advice(class_name: str, module: str, there: str, *, named: bool = True) -> str:
    """Return what to do about an error of ``class_name`` that code of ``module`` raised ``there``, as values came.

    With ``named`` False the module's name is a stranger's word, and is not repeated.
    """
    kind = class_name.rpartition(".")[2]
    if kind == "MemoryError":
        return f"They need more memory than a task has {there}: send less of them, or in a smaller type."
    if kind in ("PayloadError", "UnpicklingError", "EOFError", "KeyError", "OSError") and not module:
        return "What arrived is not what was sent: submit it again."
    if kind == "RecursionError":
        return "An attribute of theirs is looked up without end while they are made: see its class's __getattr__."
    if module == "__main__":
        return "Code of your notebook raised it, a __setstate__ or __new__: let it do without what is only here."
    if module.partition(".")[0] in sys.stdlib_module_names:
        return "Their class can't be made of what pickle keeps: give it a __reduce__, or send plain data."
    if module:
        library = module.partition(".")[0] if named else "a library"
        return f"The code of {library} raised it: its version {there} may be another than here."
    if kind in ("TypeError", "ValueError"):
        return "A class takes other arguments than pickle gives it: give it a __reduce__ that fits its __init__."
    return "Send plain data, or make them inside the task."


def advice_on_name(message: str, there: str) -> str:
    """Return what to do about a name that is not ``there``, as ``message`` of pickle says."""
    if "__main__" in message or "_Main" in message:
        return "It is pickled by its name in your notebook only: define it inside the task, or send it with the call."
    return f"Its module {there} does not have it: compare the versions, or what your notebook has added to the module."
