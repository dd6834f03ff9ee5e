"""The safe codec: a result as plain data, which can be read without trust in its sender.

Map: ``codec.py`` encodes and decodes a value; ``containers.py`` adds Counter and its like, ``arrays.py`` numpy,
``frames.py`` and ``extensions.py`` pandas, ``times.py`` dates and time zones. ``parts.py`` has what they share: the two
errors, data on its way out and in, the reader's budget. ``text.py`` bounds a JSON text before anything is made of it.
"""

from p2p_ipython.task.safe.codec import BUDGET, Unsupported, decode, encode

__all__ = ["BUDGET", "Unsupported", "decode", "encode"]
