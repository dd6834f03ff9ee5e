"""The contract of a panel and its kernel: what each may say to the other, as types. Pure.

labextension/src/panel/contract.ts declares the same for the browser, and says what each field means. The schema of both
is contract.json beside it: tests on each side compare what it declares, and what the kernel really sends, with that.

A row leaves out what has its default (0, "", false, []); only fields of a type in words are always there.
"""

# Without annotations from __future__: as text, Required and NotRequired would not be seen by the test.
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

VERSION = 1

# Types in words. The words come from enumerations and records elsewhere; a test compares.
ClusterState = Annotated[str, "none", "connecting", "connected", "reconnecting", "waiting", "lost", "closed"]
ClusterKind = Annotated[str, "none", "personal", "own", "shared"]
TaskState = Annotated[str, "waiting", "sent", "running", "stopping", "done", "failed", "cancelled"]
LendingState = Annotated[str, "starting", "lending", "paused", "ending", "failed"]
View = Annotated[str, "widget", "sidebar"]
StreamName = Annotated[str, "stdout", "stderr"]
ImageType = Annotated[str, "image/png", "image/jpeg"]
Action = Annotated[str, "see asked.ARGUMENTS"]


# --- rows -------------------------------------------------------------------------------------------


class ClusterFacts(TypedDict, total=False):
    """The facts about the cluster as a whole."""

    state: Required[ClusterState]
    words: str
    kind: Required[ClusterKind]
    title: str
    board: str
    me: str
    key: str
    note: str
    since: int
    reasons: dict[str, str]
    done: int
    failed: int
    cancelled: int
    unlisted: int


class Means(TypedDict, total=False):
    """The actions that work now, and what they need."""

    can: list[Action]
    clusters: list[str]
    hosted: list[str]
    machine: str
    cores: int
    python: str
    sandboxes: list[str]


class MemberRow(TypedDict, total=False):
    """A process that is here, or a member none of whose processes is."""

    name: str
    roles: list[str]
    own: bool
    me: bool
    here: bool
    state: str
    machine: str
    python: str
    since: int
    slots: int
    busy: int
    trust: str
    key: str
    link: str
    rtt: float
    lentTasks: int
    lentSeconds: float
    usedTasks: int
    usedSeconds: float


Attempt = tuple[str, float, float, float]
"""An attempt that was lost: its worker, and when it was sent, began and was known to be lost."""


class TaskRow(TypedDict, total=False):
    """A task."""

    label: str
    kind: str
    state: Required[TaskState]
    words: str
    needs: str
    worker: str
    attempt: int
    submitted: float
    sent: float
    started: float
    ended: float
    tried: list[Attempt]
    ran: float
    sizeIn: int
    sizeOut: int
    said: str
    error: str
    cell: str
    part: float
    at: str


class GroupRow(TypedDict, total=False):
    """Tasks that belong together."""

    label: str
    state: Required[TaskState]
    words: str
    total: int
    over: int
    failed: int
    began: float
    ended: float
    again: int


class OfferRow(TypedDict, total=False):
    """A worker's standing offer."""

    name: str
    own: bool
    state: str
    slots: int
    free: int
    cores: int
    memory: int
    tags: list[str]
    until: float
    python: str
    platform: str
    only: str
    paused: bool
    mine: bool
    sandbox: str
    cards: str


class VisitorRow(TypedDict, total=False):
    """A person who waits for a yes or no."""

    title: str
    name: str
    called: str
    key: str
    invited: bool
    about: str
    note: str


class LendingRow(TypedDict, total=False):
    """A worker that this kernel has started."""

    title: str
    name: str
    state: Required[LendingState]
    words: str
    slots: int
    busy: int
    until: int
    only: str
    tasks: int
    seconds: float
    policy: str
    conditions: str
    news: list[str]
    logged: int
    unknown: dict[str, str]


class QuestionRow(TypedDict, total=False):
    """A question to the lender: whether a task may run."""

    number: int
    title: str
    worker: str
    name: str
    key: str
    label: str
    kind: str
    source: str
    cut: str
    size: int
    options: str
    until: float
    same: bool
    walled: bool


# --- from the kernel --------------------------------------------------------------------------------


class Parts(TypedDict, total=False):
    """The rows of which there is one each."""

    cluster: ClusterFacts
    means: Means


class Rows(TypedDict, total=False):
    """Rows by table and id."""

    members: dict[str, MemberRow]
    tasks: dict[str, TaskRow]
    groups: dict[str, GroupRow]
    offers: dict[str, OfferRow]
    visitors: dict[str, VisitorRow]
    lending: dict[str, LendingRow]
    questions: dict[str, QuestionRow]


Gone = dict[str, list[str]]
"""Ids of rows that are no longer there, by table."""


class Snapshot(TypedDict):
    """All there is."""

    t: Literal["snapshot"]
    v: int
    rev: int
    now: float
    set: NotRequired[Parts]
    put: NotRequired[Rows]


Delta = TypedDict(
    "Delta",
    {
        "t": Literal["delta"],
        "rev": int,
        "base": int,
        "now": float,
        "set": NotRequired[Parts],
        "put": NotRequired[Rows],
        "del": NotRequired[Gone],
    },
)
"""The changes since revision ``base``."""


class Did(TypedDict):
    """The outcome of an action."""

    t: Literal["did"]
    id: int
    ok: bool
    say: str
    data: NotRequired[Any]


class Code(TypedDict):
    """A widget's second module."""

    t: Literal["more"]
    code: str


class StreamOutput(TypedDict):
    """Text that was printed."""

    kind: Literal["stream"]
    name: StreamName
    text: str


class TextOutput(TypedDict):
    """The text of a display."""

    kind: Literal["text"]
    text: str


class ImageOutput(TypedDict):
    """A picture, as base64."""

    kind: Literal["image"]
    mime: ImageType
    data: str


Output = StreamOutput | TextOutput | ImageOutput


class Shown(TypedDict):
    """The source and output of a task."""

    source: str
    outputs: list[Output]
    error: str


class LogEntry(TypedDict):
    """A task that has run on this machine, or was refused. -1 stands for what isn't known."""

    time: float
    member: str
    label: str
    outcome: str
    why: str
    seconds: float
    cpu: float
    memory: float
    bytesIn: float
    bytesOut: float


class Logged(TypedDict):
    """The last entries of the lending log, the newest first."""

    entries: list[LogEntry]


class Invited(TypedDict):
    """An invitation that was made. ``code`` is a secret until the guest has used it."""

    code: str
    commands: list[str]
    until: int


# --- to the kernel ----------------------------------------------------------------------------------


class Hello(TypedDict):
    """A panel asks for a snapshot."""

    t: Literal["hello"]
    v: int
    view: View


class More(TypedDict):
    """A widget asks for its second module."""

    t: Literal["more"]


class Do(TypedDict):
    """A panel asks for an action, and for a ``Did`` with the same id."""

    t: Literal["do"]
    id: int
    action: Action
    args: dict[str, Any]


FromKernel = Snapshot | Delta | Did
ToKernel = Hello | More | Do
