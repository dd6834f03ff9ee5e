"""``p2p doctor``: which hop between this machine and its friends' works, and which one doesn't.

::

    checks.py        what is checked, in which order, and what a report says (pure)
    network.py       what a silent port may mean, in words (pure), and what around this machine may explain it
    ssh.py           what an SSH server shows and answers
    wormhole.py      the mailbox, its clock, the relay, a link over it
    examine.py       runs the checks, and one that is handed in: cli/doctor.py looks at the sandbox
    show.py          a report on a terminal (pure)
"""
