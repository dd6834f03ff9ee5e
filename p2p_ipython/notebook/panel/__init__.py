"""The panel's half in the kernel: a cluster as it is now, for widgets and sidebars.

Between the cluster and a panel lie, each in a module of its own::

    contract      what the kernel and a panel may say to each other, as types; labextension has the same
    rows          the row of a member, a task, an offer … from its record (pure)
    hub           which rows there are, and which fields have changed since the last message (pure)
    watch         from the cluster into a hub; people: whose sessions are whose
    surroundings  from the reception, the lender and this user's files into a hub; which actions work now
    pump          when: at most ten messages a second, none while no panel is open
    channel       one panel's comm: messages to it, checked messages from it (asked)
    comm          where a sidebar finds the kernel, and opens a channel
    display       the panel in a cell's output; widget: the live one; static: its last state as plain HTML
    actions       what a panel may ask for, done on threads of its own; shown: the details of one task
    panels        all of it for one notebook
    registration  what ``load`` makes and ``unload`` ends: makes the panels when they are first asked for
"""
