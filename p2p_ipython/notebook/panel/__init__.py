"""The panel's half in the kernel: what a cluster looks like now, for a widget and for a sidebar.

Between the cluster and a panel lie, each in a module of its own::

    rows      how a member, a task, an offer … is told (pure)
    hub       which rows there are, and what of them has changed since the last message (pure)
    watch     from the cluster, the lender and those who wait at the door into a hub
    pump      when: at most ten messages a second, nothing while no panel is open
    channel   one panel's comm: messages to it, checked messages from it
    comm      where a sidebar finds the kernel, and opens a channel
    widget    the panel in a cell's output; static: its last state as plain HTML
    actions   what a panel may ask for, done on a thread of its own
    panels    all of it for one notebook
    registration  what ``load`` makes and ``unload`` ends: where the panels can be asked for

What is said is labextension/src/panel/contract.ts.
"""
