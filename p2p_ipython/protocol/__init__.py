"""The protocol: pure decisions and formats, as PROTOCOL.md has them. Time is an argument; nothing here does I/O.

Machines, each with its transitions or rules beside it::

    client_machine       what becomes of a client's tasks
    placement            which worker gets a task
    needs                what a task needs of its worker, and the queue of those that need the same
    retries              whether a task that has raised runs again
    reasons              why tasks wait, in words
    worker_machine       which task runs in which slot
    transitions          the check of both machines' changes of state, and its error
    turns, shares        whose turn it is at a worker, by recent use
    membership_machine   which roster holds, and what to ask and serve
    host_machine         who knocks at an owner's cluster
    presence             which sessions are here

Formats, each read once and checked::

    frames               headers and bodies on links and pipes
    rules                values from a peer's JSON: types and bounds of fields
    task_frames          the frames about tasks
    messages             the messages of a board
    wire                 lines of a board: encrypted, signed, numbered
    identity             keys, certificates, vouches, proofs, sealed boxes
    roster               who is in a shared cluster
    plain                text that people can be shown
    tracing              events and actions as lines, and the story of a task
"""
