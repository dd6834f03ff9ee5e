"""Our own board: an SSH server that speaks pico's ``pipe``, with a wormhole mailbox and a transit relay beside it.

::

    main, __main__   the processes: ``p2p board``, and a personal cluster's board
    descriptors      how many files such a process may have open, and one in reserve
    serve            starts a board
    options          what a board is to be (``ServerOptions``), and where it is then (``Addresses``)
    server           the board over SSH: its connections, its keys, its end
    bounds           all that strangers can make a board keep or do: one table (pure)
    limits           buckets, shares and counts by which it keeps to its bounds (pure)
    arrivals         which connections may stay, and which make room (pure)
    ports            the ports: who comes in at them, and to which protocol
    opening          which protocol a connection's first bytes are of (pure)
    proxy            the header by which a proxy says for whom it has connected (pure)
    guard            what one connection may make the board do and keep
    session          one session: a command, and then at most one topic
    commands         a command line in, what was meant out (pure)
    fanout           writes chunks to their readers, in batches under load
    services         the mailbox and the relay: for how many they are there
    mailboxes        what clients of the mailbox say and are told, and what is kept meanwhile (pure)
    mailbox, relay   each of the two, over sockets
    users            names of users by their keys
    host_key         the board's own key
"""
