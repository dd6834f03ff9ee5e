"""What has arrived of a task: its result, and what came with it, as bytes that nobody has read yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from p2p_ipython.errors import NotKept
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from p2p_ipython.protocol.frames import Buffer
    from p2p_ipython.protocol.task_frames import Attached, Result


@dataclass(frozen=True)
class Arrived:
    """A result as it came: its frame, the frame's body, its large segments by ref."""

    result: Result
    inline: Buffer
    large: Mapping[str, Buffer]
    worker: str
    signer: str = ""
    """Fingerprint of the key of the member whose worker it is."""

    def part(self, entry: Attached, inline: Buffer) -> Arrived:
        """Return something that was attached as if it were a result of its own."""
        own = replace(
            self.result,
            ok=True,
            failure=None,
            segments=entry.segments,
            codec=entry.codec,
            type_name=entry.type_name,
            at=entry.at,
            attached=(),
        )
        return replace(self, result=own, inline=inline)

    def taken_apart(self) -> tuple[Arrived, dict[tuple[str, str], Arrived]]:
        """Return the result alone, and what was attached to it, by kind and name."""
        if not self.result.attached:
            return self, {}
        rest = memoryview(self.inline)
        parts = []
        for segments in (self.result.segments, *(entry.segments for entry in self.result.attached)):
            size = sum(size for size, ref in segments if ref is None)
            parts.append(rest[:size])
            rest = rest[size:]
        own, *others = parts
        attached = zip(self.result.attached, others, strict=True)
        return replace(self, inline=own), {(e.what, e.name): self.part(e, bytes(inline)) for e, inline in attached}

    @property
    def size(self) -> int:
        """Bytes in all, besides the header."""
        size = len(self.inline)
        for part in self.large.values():
            size += len(part)
        return size


def value_of(
    name: str, attached: Mapping[tuple[str, str], Arrived], worker: str, decode: Callable[[Arrived], Any]
) -> Any:
    """Return the value of a name that a task has bound. Raises ``NotKept``, and what ``decode`` raises."""
    found = attached.get(("name", name))
    if found is None:
        raise NotKept(
            f"the task has not bound {plain(name, 80)!r}",
            hint=f"It has bound {_listed(attached)}." if attached else "Only cells bind names: %%p2p.",
        )
    about = found.result
    if about.codec != "left":
        return decode(found)
    kind, why = plain(about.type_name, 200) or "object", plain(about.at, 200)
    what = f"{name!r}, of the type {kind}, stayed on {plain(worker, 80) or 'its worker'}"
    if why:
        raise NotKept(f"{what}: it can't be pickled ({why})", hint="Bind plain data to a name instead.")
    raise NotKept(what, hint=f"Run the cell again as %%p2p --bind {name}: only small, plain data comes unasked.")


def _listed(attached: Mapping[tuple[str, str], Arrived]) -> str:
    names = [plain(name, 80) for kind, name in attached if kind == "name"]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "nothing"
