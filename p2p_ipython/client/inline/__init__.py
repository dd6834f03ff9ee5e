"""A cluster that is this process itself: tasks run here, at once, in the thread that submits them.

``connect("inline")`` makes one, and each ``connect()`` in a task. A task is frozen as ever, and thawed here: what it
changes of its values stays its own. Its frames are in the traceback of its error, so ``%debug`` and breakpoints work.

``cluster``   the cluster and its core: no board, no links, one slot
``running``   runs one task, in the place of the bridge
``cells``     runs a cell in its own namespace, with the notebook's shell
``kept``      what a task finds as it was, and what is put back after it
``output``    notes what a task prints and displays, while it is shown
"""
