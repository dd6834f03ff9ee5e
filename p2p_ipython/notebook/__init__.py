"""The notebook: magics, output under cells, cards of running tasks, and the panel's half in the kernel.

========================  =========================================================================================
``magics``                loads and unloads the extension; ``%p2p_connect``, ``%%p2p``, ``%p2p_status``, ``%p2p_panel``
``connection``            which cluster the notebook has, and how it goes from one to another
``task_line``             the options of tasks in the line of ``%%p2p``, and their defaults
``futures``               ``%p2p_futures``, ``%p2p_pull``
``advice``                what to do about a name or a file that a task lacked
``friends``               ``%p2p_host``, ``%p2p_invite``, ``%p2p_join``, ``%p2p_approve``, ``%p2p_trust`` and their kin
``lending``               ``%p2p_lend``
``lines``                 reads the line of a magic: options, ``--globals``
``shown_errors``          syntax errors and groups, which IPython shows without asking them
``ways``                  options of a magic that say how to reach a board
``completion``            completes options, titles and names in these lines
``dry_run``               the table of ``%%p2p --dry-run``
``members_table``         the table of ``%p2p_members``
``output``                puts the output of a task under the cell that submitted it, in each kind of front end
``shell_words``           which magics of a cell mean the worker's shell
``status_line``           the line under that cell: what it says, and when it is updated
``group_line``            the line of tasks that belong together: a bar, counts, an estimate
``sweeping``, ``each``    ``%%p2p --each`` and ``--all``: many tasks of one cell
``card``, ``card_widget``  the card that replaces the line of a task that takes a while
``future_view``           what a cell shows whose value is a future
``notice``                a text under a cell, with buttons to answer guests
``comms``                 comms and widgets that a front end can reach while a cell computes
``panel``                 the panel's half in the kernel
========================  =========================================================================================
"""
