"""The lender's say: which tasks run on a machine that is lent, when and how much, and what the lender learns of it.

::

    policy.py        pure: the policy as a value, and what it decides
    policy_file.py   the policy's text, in TOML: read, with the place of each mistake
    facts.py         the machine: is anybody at the keyboard, is it on mains power, what else keeps it busy
    known.py         the members that a lender knows, and those that are new
    record.py        the lending log
    control.py       the way from ``p2p lending`` to the workers that run on this machine

worker/keeper.py has a worker obey all this.
"""
