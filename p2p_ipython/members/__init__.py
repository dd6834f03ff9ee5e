"""The members of a cluster: profiles on disk, the ways in, the session among the members, the owner's host.

    way.py                   how to get to a board, as far as the user has said it
    access.py                what a process needs to take part: key, board, secret, roster

    profile.py               what this user knows of one shared cluster, and its JSON
    profiles.py              the profiles in a folder: read, changed, locked
    owner.py                 the owner's acts, each from one profile to the next epoch: found, admit, revoke, extend
    operations.py            what people do, step by step: find a title, host, revoke, trust, leave

    inviting.py              an invitation, the owner's end: the question, and what a yes changes
    joining.py               the guest's end: by a code or by knocking, and the profile that is kept
    invitation.py            the talk of both ends over a wormhole
    invitation_messages.py   what is said there: written, read, checked
    knocking.py              a guest asks on the lobby
    guest_key.py             the SSH key of a guest, made if there is none

    voice.py                 one session's lines on one topic
    membership.py            this process among the members: says hello, hands the roster on, moves to a new topic
    roll_call.py             whom the host hears, and whether they have followed to a new topic
    host.py                  the owner's host: answers asks, admits guests, hands the newest roster on

Decisions about membership are in protocol/membership_machine.py, protocol/host_machine.py and protocol/roster.py.
"""
