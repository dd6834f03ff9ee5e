"""A worker: it lends slots, in which the tasks of a cluster's members run.

``main``         options, and one worker's life from joining to leaving
``__main__``     a worker of a personal cluster, started by its notebook
``lend``         a worker that a notebook has started to lend its user's machine
``mounts``       what the lender shares with tasks on purpose
``hardening``    keeps the process's memory and environment from tasks
``sandboxes``    which sandbox runs tasks, and the self-test that decides it; ``probe`` is what it runs inside
``sandbox_bench``  what sandboxes cost
``keeper``       has the agent obey the lender's policy (lending/), and writes the log; ``hand``: Ctrl-C and commands
``agent``        performs what the worker machine decides: board, links and slots
``cache``        large buffers that clients have sent
``slot_base``    a slot as its worker sees it
``slots``        a slot: gives tasks to a runner, and always has one
``environments`` packages that tasks ask for, installed once a member and list; ``installer``: by uv, from ``index``
``runner_life``  one life of a runner
``feeding``      the large buffers that a runner holds, and how it gets them
``engines/``     slots whose tasks a cluster of another kind runs, as dask's
``pipe``         frames to and from a runner on the event loop
"""
