"""The sandbox: how tasks are run in a process of their own, the runner, and what starts, bounds and ends it.

``launch``      the interface of a mechanism, one table of the mechanisms there are, the runner's arguments
``mechanisms``  how a runner is started and walled in, one module a mechanism
``inside``      what runs behind the wall: the runner, its warden, and what executes a task there
``seccomp``     filters of system calls, for mechanisms and for what runs inside
``landlock``    the kernel's Landlock, for the same
``pipes``       cuts what comes out of a pipe into frames, at both ends of a runner's pipes
``processes``   finds and ends the processes that a task has started
``scratch``     folders for runners, removed when nobody uses them any more
"""
