"""The message board, where the members of a cluster find one another: its server, its client, and what both share.

::

    base        a board as its users see it: lines in, lines out, a state in words
    lines       a session's lines: cut out of a stream, written again until they were echoed (pure)
    session     those lines at work, for every kind of board
    topics      who is on which topic, who may be, and who reads what (pure)
    client/     a session with a board over SSH, and what it takes to get there
    server/     our own board
    pico/       a board that is no better than pico's, for tests

rehearsal/board.py has another board, in memory.
"""
