"""Engines: somebody's cluster behind a worker, whose tasks run there instead of in this machine's runners.

::

    agent ── EngineSlot, one a task at a time ──► Engine ── frames ──► host ── bytes ──► engine ──► entry.run ──► runner
             (the member's keys)                         (a process without keys)      (a worker of the engine's)

``choice``         what --engine names, and what can't be asked for beside it
``frames``         what an agent and its host, and a host and ``entry``, say to one another
``engine``         the host's life, seen from the agent: start, loss, back-off, and how many slots there are
``slot``           a slot whose tasks the engine runs
``host``           the process that is the engine's client
``client``         what a host needs of an engine
``with_dask``      a client of dask's scheduler
``with_executor``  an executor that a factory has made
``entry``          what runs in the engine's workers: bytes in, bytes out
``inner``          the runners there, each a process of its own
"""
