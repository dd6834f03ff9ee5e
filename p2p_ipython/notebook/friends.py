"""The magics for clusters of friends: ``%p2p_host``, ``%p2p_invite``, ``%p2p_join``, ``%p2p_approve`` and their kin.

Hosting, invitations and joining continue in the background; a notice under their cell says what they wait for
(notice.py). Only ``--wait`` blocks the kernel for as long as a person takes. Names that others give themselves are
shown as text.

Modules of the blocks below are imported where they are needed: loading the extension must take milliseconds.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from IPython.core.error import StdinNotImplementedError
from IPython.core.error import UsageError as MagicUsage
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import publish_display_data

from p2p_ipython.config import parse_duration
from p2p_ipython.errors import NotAdmitted, NotConnected, UsageError
from p2p_ipython.notebook.connection import Notebook
from p2p_ipython.notebook.lines import Interrupted, options_of, say
from p2p_ipython.notebook.members_table import members_table
from p2p_ipython.notebook.output import table
from p2p_ipython.notebook.ways import file_of, way_arguments, way_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.errands import Invitation, Joining, Visitor
    from p2p_ipython.client.reception import Reception
    from p2p_ipython.members.profile import Profile
    from p2p_ipython.notebook.notice import Notice

MOMENT = 5.0
"""Seconds that a magic waits for an answer before it continues in the background."""

LOOK_EVERY = 0.2
"""Seconds between two looks at whether a guest has come, with ``--wait``."""

PERSONAL = "personal"
"""Name of a personal cluster if none is given; as in client/cluster.py, which loads later."""


@magics_class
class FriendsMagics(Magics):
    """Magics for clusters that friends share."""

    def __init__(self, shell: InteractiveShell, notebook: Notebook) -> None:
        super().__init__(shell, parent=shell)
        self._notebook = notebook
        self._made: Reception | None = None
        self._making = threading.Lock()

    def end(self) -> None:
        """Withdraw invitations, and stop hosting."""
        reception, self._made = self._made, None
        if reception is not None:
            reception.close()

    # -- the owner's --

    @magic_arguments()
    @argument("cluster", metavar="NAME", help="what the cluster is called, as friends or alice/friends")
    @argument("--users", help="expected members: bob,carol; with bob=SHA256:… bob needs no invitation")
    @argument("--duration", help="how long the cluster is hosted, as 12h or 30d (default: 14d)")
    @argument("--owner", help="what you are called in its title (default: your name on the board)")
    @argument("--resume", action="store_true", help="only continue with a cluster that exists")
    @way_arguments(board="[USER@]HOST[:PORT] of the board to meet at (default: pipe.pico.sh)")
    @line_magic
    def p2p_host(self, line: str) -> None:
        """Host a cluster that friends share, a new one or one of yours, from this notebook.

        The host admits people and sends everybody the roster, until the kernel ends, %p2p_unhost, or
        --duration is over. The members can work together without it. People who knock appear under the cell:
        answer with %p2p_approve NAME or %p2p_refuse NAME. %p2p_invite invites a friend.
        """
        given = options_of(self.p2p_host, line)
        from p2p_ipython.members.operations import parse_users

        notice = self._notice(buttons=True)
        try:
            title, new = self.reception.host(
                given["cluster"],
                notice,
                way=way_of(given),
                users=parse_users(given["users"] or ""),
                duration=parse_duration(given["duration"]) if given["duration"] else None,
                owner=given["owner"],
                resume=given["resume"],
                progress=notice.progress,
            )
        except BaseException as error:
            notice.show("Not hosted.", "")
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("the cluster is not hosted") from None
            raise
        if not new:
            words = f"{title} is hosted by this notebook already. The options of this line apply from now on."
            notice.show(words, words)

    @magic_arguments()
    @argument("cluster", nargs="?", metavar="NAME", help="the cluster (default: all that this notebook hosts)")
    @line_magic
    def p2p_unhost(self, line: str) -> None:
        """Stop hosting a cluster. Its members can continue without it."""
        given = options_of(self.p2p_unhost, line)
        titles = self.reception.unhost(given["cluster"])
        say(f"This notebook no longer hosts {', '.join(titles)}." if titles else "This notebook hosts nothing.")

    @magic_arguments()
    @argument("cluster", nargs="?", metavar="NAME", help="the cluster, as friends (default: the one hosted here)")
    @argument("guest", nargs="?", metavar="WHO", help="what the guest will be called (default: the name they give)")
    @argument("--own", action="store_true", help="a machine of your own, which counts as you")
    @argument("--yes", action="store_true", help="admit the guest who has the code, without a question")
    @argument("--wait", action="store_true", help="wait until it is over, and ask here")
    @way_arguments(board="with --own: the board of a personal cluster, which is then called NAME")
    @line_magic
    def p2p_invite(self, line: str) -> Invitation:
        """Invite a friend into a cluster that you host: show a code to give them.

        It returns at once. When the guest has come, their name and the fingerprint of their key appear under the cell:
        answer with %p2p_approve NAME or %p2p_refuse NAME. A code works once, for ten minutes. The invitation that is
        returned has it, too: invitation.arguments is what the guest types after "p2p join".
        """
        given = options_of(self.p2p_invite, line)
        if given["board"] and not given["own"]:
            raise MagicUsage("--board is for --own, a machine of a personal cluster; a shared one knows its board")
        notice = self._notice(buttons=not given["wait"])
        try:
            invitation = self.reception.invite(
                given["cluster"] or self._default_cluster(personal=bool(given["board"])),
                given["guest"],
                notice,
                way=way_of(given),
                own=given["own"],
                yes=given["yes"],
            )
        except BaseException as error:
            notice.show("Not invited.", "")
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("the invitation was withdrawn") from None
            raise
        if given["wait"]:
            self._wait_and_ask(invitation)
        return invitation

    @magic_arguments()
    @argument("who", metavar="NAME", help="the person who waits, or how the fingerprint of their key begins")
    @argument(
        "--as",
        dest="called",
        metavar="OTHER",
        help="what they will be called; with a member's name: that member's other key",
    )
    @line_magic
    def p2p_approve(self, line: str) -> None:
        """Admit a person who knocks at a cluster that is hosted here, or who has the code of an invitation.

        Ask them for the fingerprint of their key (p2p whoami shows it), and compare. The name proves nothing: people
        choose it themselves.
        """
        given = options_of(self.p2p_approve, line)
        visitor, called = self.reception.approve(given["who"], called=given["called"])
        if visitor.own:
            say(f"{visitor.called} is in {visitor.title} as a machine of your own, with the key {visitor.fingerprint}.")
        elif called:
            say(f"{called} is in {visitor.title}, with the key {visitor.fingerprint}.")
        else:
            say(f"{visitor.called} no longer waits.")

    @magic_arguments()
    @argument("who", metavar="NAME", help="the person who waits, or how the fingerprint of their key begins")
    @line_magic
    def p2p_refuse(self, line: str) -> None:
        """Refuse to admit a person, also if they knock again while this notebook hosts the cluster."""
        visitor = self.reception.refuse(options_of(self.p2p_refuse, line)["who"])
        say(f"{visitor.called}, with the key {visitor.fingerprint}, is refused.")

    @magic_arguments()
    @argument("cluster", metavar="NAME", help="the cluster, as friends")
    @argument("member", metavar="WHO", help="the member's name, or the fingerprint of one of their keys")
    @way_arguments(board="")
    @line_magic
    def p2p_revoke(self, line: str) -> None:
        """Remove a member from a cluster that you own, at once.

        Each process that learns of it cuts its links to them. The other members get another topic and another key;
        the tasks that they run continue.
        """
        given = options_of(self.p2p_revoke, line)
        title, out = self.reception.revoke(given["cluster"], given["member"], way=way_of(given))
        words = f"{out.member} is removed from {title}; the others have another key now."
        if out.waiting:
            words += f" {out.waiting} of their processes don't have it yet; they get it while somebody hosts."
        say(words)

    # -- the guest's --

    @magic_arguments()
    @argument("code", nargs="+", metavar="CODE", help="the code that your friend has given you; or a title, to knock")
    @argument("--name", help="what you are called (default: your login name)")
    @argument("--own", action="store_true", help="the code is your own: this machine will count as you")
    @argument("--owner", metavar="SHA256:…", help="when knocking: the fingerprint of the owner's key")
    @argument("--make-key", action="store_true", help="make an SSH key if there is none")
    @argument("--wait", action="store_true", help="wait for the answer")
    @way_arguments(board="when knocking: HOST[:PORT] of the board (default: pipe.pico.sh)")
    @line_magic
    def p2p_join(self, line: str) -> Joining | None:
        """Join a friend's cluster by the code that they have given you.

        The friend has to say yes: the magic waits a moment for that, then continues in the background, with its state
        under the cell. From then on %p2p_connect TITLE works, on every later day. With a title in place of a code, it
        knocks.
        """
        from p2p_ipython.protocol.roster import is_title

        given = options_of(self.p2p_join, line)
        code = " ".join(given["code"])
        notice = self._notice(buttons=False)
        if is_title(code):
            self._knock(code, given, notice)
            return None
        try:
            joining = self.reception.join(
                code,
                notice,
                name=given["name"],
                identity=file_of(given["identity"]),
                mailbox=given["mailbox"] or "",
                own=given["own"],
                make_key=given["make_key"],
            )
        except BaseException:
            notice.show("Not joined.", "")
            raise
        try:
            over = joining.wait(None if given["wait"] else MOMENT)
        except KeyboardInterrupt:
            joining.cancel()
            raise Interrupted("joining was cancelled; the code is used up") from None
        if over:
            joining.result()
        return joining

    @magic_arguments()
    @argument("cluster", metavar="TITLE", help="the cluster, as alice/friends")
    @argument("--yes", action="store_true", help="also if it is your own: nobody can then change its members")
    @line_magic
    def p2p_leave(self, line: str) -> None:
        """Forget a cluster: its topic and key are removed from this machine."""
        from p2p_ipython.members import operations
        from p2p_ipython.members.profiles import Profiles

        given = options_of(self.p2p_leave, line)
        profiles = Profiles()
        title = operations.find_title(profiles, given["cluster"])
        cluster = self._connected()
        if cluster is not None and cluster.target == title:
            raise UsageError(f"this notebook is connected to {title}", hint="Leave it first: %p2p_disconnect")
        if title in self.reception.hosted():
            raise UsageError(f"this notebook hosts {title}", hint=f"End that first: %p2p_unhost {title}")
        if profiles.load(title).hosting is not None and not given["yes"]:
            raise UsageError(
                f"{title} is your own; once forgotten, it can't be hosted again, and no member removed",
                hint=f"If that is what you want: %p2p_leave {title} --yes",
            )
        operations.leave(profiles, title)
        say(f"{title} is forgotten on this machine.")

    # -- everybody's --

    @magic_arguments()
    @argument("cluster", nargs="?", metavar="NAME", help="the cluster (default: the one that is connected or hosted)")
    @line_magic
    def p2p_members(self, line: str) -> None:
        """Show the members of a cluster: names, keys, roles, trust, and how many of their workers are here.

        Without a name, while no cluster is connected or hosted, show the clusters that this machine knows.
        """
        from p2p_ipython.members import operations
        from p2p_ipython.members.profiles import Profiles

        given = options_of(self.p2p_members, line)
        profiles = Profiles()
        name = given["cluster"] or self._shared_title() or self._only_hosted()
        if name is None:
            self._show_clusters(profiles.all())
            return
        profile = profiles.load(operations.find_title(profiles, name))
        if not profile.roster:
            say(f"The list of members of {profile.title} has not come yet. It comes when you connect.")
            return
        publish_display_data(members_table(profile, self._workers_here(profile.title)))

    @magic_arguments()
    @argument("cluster", nargs="?", metavar="NAME", help="the cluster (default: the one that is connected)")
    @argument("who", metavar="WHO", help="the member's name")
    @argument("--revoke", action="store_true", help="stop trusting them")
    @line_magic
    def p2p_trust(self, line: str) -> None:
        """Trust a member: results of their workers may be of any type, so they can run any code in this notebook.

        This is kept for the cluster. A result that was refused can be asked for again; nothing runs again. Results
        of other members are plain data: numbers, text, arrays, tables, pictures.
        """
        from p2p_ipython.members import operations
        from p2p_ipython.members.profiles import Profiles

        given = options_of(self.p2p_trust, line)
        cluster = self._connected()
        profiles = Profiles()
        title = None if given["cluster"] is None else operations.find_title(profiles, given["cluster"])
        if cluster is not None and title in (None, cluster.target):
            title = cluster.target
            name = cluster.trust(given["who"], revoke=given["revoke"])
        elif title is None:
            raise NotConnected(
                "no cluster is connected, so it is not clear whose NAME you mean",
                hint="Run %p2p_connect TITLE first, or name the cluster: %p2p_trust TITLE NAME",
            )
        else:
            name, _ = operations.trust(profiles, title, given["who"], allow=not given["revoke"])
        if given["revoke"]:
            say(f"Results of {name}'s workers are plain data again.")
        else:
            say(f"Results of {name}'s workers in {title} may be of any type now, and run code in your notebooks.")

    # -- for completion --

    def names_waiting(self) -> list[str]:
        """Return the names of people who wait to be admitted."""
        return [visitor.called for visitor in self._made.waiting()] if self._made is not None else []

    def names_of_members(self) -> list[str]:
        """Return the names of the connected cluster's members."""
        cluster = self._connected()
        return [member.name for member in cluster.members()] if cluster is not None else []

    # -- inside --

    @property
    def reception(self) -> Reception:
        """The reception, which deals with hosting and with people who would join; made on first use."""
        from p2p_ipython.client.reception import Reception

        with self._making:  # the panel asks for it from another thread
            self._made = self._made or Reception()
            return self._made

    def _notice(self, *, buttons: bool) -> Notice:
        from p2p_ipython.notebook.notice import Notice

        return Notice(self._notebook.output(), self._answer if buttons else None)

    def _answer(self, visitor: Visitor, yes: bool) -> None:
        self.reception.answer(visitor, yes=yes)

    def _connected(self) -> Cluster | None:
        cluster = self._notebook.cluster
        return None if cluster is None or cluster.closed else cluster

    def _shared_title(self) -> str | None:
        cluster = self._connected()
        return cluster.target if cluster is not None and cluster.shared else None

    def _only_hosted(self) -> str | None:
        hosted = self._made.hosted() if self._made is not None else []
        return hosted[0] if len(hosted) == 1 else None

    def _default_cluster(self, *, personal: bool) -> str:
        name = PERSONAL if personal else self._only_hosted()
        if name is None:
            raise MagicUsage("name the cluster: %p2p_invite NAME [WHO]")
        return name

    def _wait_and_ask(self, invitation: Invitation) -> None:
        """Wait until an invitation is over; when the guest has come, ask the user."""
        asked: Visitor | None = None
        try:
            while not invitation.wait(LOOK_EVERY):
                visitor = invitation.visitor
                if visitor is not None and visitor != asked:
                    asked = visitor
                    self._answer(visitor, _said_yes(f"Let {visitor.called} in? [yes/no] "))
        except KeyboardInterrupt:
            invitation.cancel()
            raise Interrupted("the invitation was withdrawn") from None
        except StdinNotImplementedError:
            invitation.cancel()
            raise UsageError(
                "nobody can answer a question here, so the invitation was withdrawn",
                hint="Leave --wait out and answer with %p2p_approve, or use --yes.",
            ) from None
        invitation.result()

    def _knock(self, title: str, given: dict[str, Any], notice: Notice) -> None:
        from p2p_ipython.client import knocking
        from p2p_ipython.client.reception import key_of_guest

        try:
            key_of_guest(file_of(given["identity"]), make=given["make_key"])
            knocking.knock(
                title,
                way=way_of(given),
                name=given["name"],
                owner=given["owner"] or "",
                patience=knocking.PATIENCE if given["wait"] else MOMENT,
                progress=notice.progress,
            )
        except NotAdmitted as error:  # it may still be knocking; then the line says how that ends
            notice.show(f"Not joined: {error.message}.", "")
            raise
        except KeyboardInterrupt:
            knocking.give_up(title)
            notice.show("Not joined.", "")
            raise Interrupted("knocking was stopped") from None
        except BaseException:
            notice.show("Not joined.", "")
            raise
        words = f"You are in {title}: %p2p_connect {title}"
        notice.show(words, words)

    def _show_clusters(self, profiles: list[Profile]) -> None:
        if not profiles:
            say("No clusters yet: host one (%p2p_host NAME), or join one (%p2p_join CODE).")
            return
        rows: list[tuple[str, ...]] = [
            (profile.title, profile.board, "yours" if profile.hosting else "") for profile in profiles
        ]
        publish_display_data(table(("cluster", "board", ""), rows, "Clusters that this machine knows"))

    def _workers_here(self, title: str) -> dict[str, int] | None:
        """Return how many workers of each member are here; None if that isn't known."""
        cluster = self._connected()
        if cluster is None or cluster.target != title:
            return None
        here: dict[str, int] = {}
        for worker in cluster.status().members:
            member = worker.name.partition(" (")[0]  # a member's name has no parenthesis
            here[member] = here.get(member, 0) + 1
        return here


def _said_yes(question: str) -> bool:
    while True:
        word = input(question).strip().lower()
        if word in ("y", "yes"):
            return True
        if word in ("n", "no"):
            return False
