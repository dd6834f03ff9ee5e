"""A session with a board over SSH: our own boards, and any that speaks pico's ``pipe``.

::

    login         for a user: the key to show to a board, and the host keys that have been accepted
    ssh           the session with a topic: made again when it is lost (``SSHBoard``)
    connection    one SSH connection, in threads of its own
    eyeballs      connecting to a name's addresses, side by side
    dial          the way to a board: socket, jump hosts, log-in
    tunnel        a jump host's channel as the next connection's socket
    services      where a board's mailbox and relay are, as this end reaches them (pure)
    address       where a board is: what was typed, completed by ``~/.ssh/config``
    ssh_config    what ``~/.ssh/config`` says of a host: OpenSSH is asked, or paramiko reads it
    keys          which key to show
    passphrase    asks the user for a key's passphrase
    known_hosts   whether it is the right board
    new_key       a fresh key
"""
