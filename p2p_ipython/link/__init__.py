"""The link between a client and a worker: frames in, frames out, each exactly once, until the link is lost.

A reader who wants to follow one link, from its meeting to its end, reads in this order::

    base            the interface: Link, LinkHandler, Linker, Meeting
    tls             the linker over TLS: it meets the peer, agrees on the ways, and makes the link
    rendezvous      one meeting of two processes through a wormhole: keys, certificates, addresses
    mailbox_client  one wormhole as coroutines, over the magic-wormhole library
    hints           a process's own addresses, and the checks on those that a peer names
    certificate     the certificate of a process; TLS contexts that trust one other certificate
    attempts        a link's attempts to get a connection, and the client's choice among the candidates
    dial            one search: every address at once, the relay a little later
    listener        the listening socket of a process, and the strangers at it
    handshake       the steps by which a connection becomes part of a link; the protocol's version
    half            one end of a link, without the way to the other end: state, waiting frames, calls of the handler
    tls_link        one link over its connections: what happens when one comes, breaks, or brings a frame
    session         pure: the frames to send again, when to probe, when a link is lost
    pace            pure: how much bulk to write ahead, by the time that it takes
    outflow         how waiting frames are written
    transport       one TCP connection: plain lines, TLS, frames
    intake          pure: a stream cut into frames
    guard           calls a link's handler; its exceptions end the link
    end             a base of handlers, which holds the link

rehearsal/link.py is the same interface without a network.
"""
