"""Values from a peer's JSON: frozen classes whose fields have rules, which are their types and their bounds.

    @dataclass(frozen=True, slots=True)
    class Nack(Fields):
        kind: ClassVar[str] = "nack"
        id: str = ruled(text(64, 1))
        reason: str = ruled(text(200), default="")

``Nack.read({"id": "t1"})`` gives such a value, and raises one error, ``RemoteProtocolError``, for a field that is
missing or breaks its rule. Fields that the class doesn't have are ignored.

Pure, and the standard library only: the runner imports this module inside the sandbox.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.frames import Header

F = TypeVar("F", bound="Fields")


class Rule(NamedTuple):
    """The type and the bound of a field.

    ``read`` takes a value as JSON has it, and returns it as the field has it, or raises ``Wrong``; ``write`` is the way
    back (None: as it is). ``says`` is for errors and for PROTOCOL.md.
    """

    says: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] | None = None
    test: str = ""
    """The same as an expression about ``v``, where ``read`` only tests; it is compiled into the reader of a class."""


_HEADER = 1 << 20
"""Characters that a header can have: a text of as many has no bound of its own."""


class Wrong(ValueError):
    """A value breaks its field's rule."""


def text(most: int, least: int = 0) -> Rule:
    """Return the rule of a text of so many characters."""

    def read(value: Any) -> str:
        if type(value) is str and least <= len(value) <= most:
            return value
        raise Wrong

    says = f"text ≤ {most:,}" if most < _HEADER else "text"
    return Rule(says, read, test=f"type(v) is str and {least} <= len(v) <= {most}")


def word(*choices: str) -> Rule:
    """Return the rule of one of these words."""
    allowed = frozenset(choices)

    def read(value: Any) -> str:
        if type(value) is str and value in allowed:
            return value
        raise Wrong

    *others, last = [f'"{choice}"' for choice in choices if choice]
    says = " or ".join([", ".join(others), last] if others else [last])
    return Rule(says, read, test=f"type(v) is str and v in {choices!r}")


def whole(least: int, most: int) -> Rule:
    """Return the rule of a whole number within these bounds; true and false are none."""

    def read(value: Any) -> int:
        if type(value) is int and least <= value <= most:
            return value
        raise Wrong

    return Rule(f"whole {least} to {_bound(most)}", read, test=f"type(v) is int and {least} <= v <= {most}")


def _bound(number: int) -> str:
    power = number.bit_length() - 1
    return f"2^{power}" if power > 20 and number == 1 << power else str(number)


def flag() -> Rule:
    """Return the rule of a truth value."""

    def read(value: Any) -> bool:
        if type(value) is bool:
            return value
        raise Wrong

    return Rule("true or false", read, test="type(v) is bool")


def number(most: float) -> Rule:
    """Return the rule of a number that is neither negative nor over ``most``."""

    def read(value: Any) -> float:
        if type(value) in (int, float) and 0 <= value <= most and math.isfinite(value):
            return float(value)
        raise Wrong

    return Rule(f"number 0 to {most:,.0f}", read)


def texts(most: int, longest: int) -> Rule:
    """Return the rule of a list of at most ``most`` texts of at most ``longest`` characters."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or len(value) > most:
            raise Wrong
        for each in value:
            if type(each) is not str or len(each) > longest:
                raise Wrong
        return tuple(value)

    return Rule(f"{'refs' if longest < _HEADER else 'texts'} ≤ {most:,}", read)


def ruled(rule: Rule, **more: Any) -> Any:
    """Make a dataclass field with a rule. ``name``: how the wire calls it. A ``default`` makes it optional there."""
    name = more.pop("name", "")
    return field(metadata={"rule": rule, "name": name}, **more)


REQUIRED: Any = object()
"""In place of a default: the field must be there."""


class Field(NamedTuple):
    """A field of a frame: its attribute, its name on the wire, its rule, and its default (or ``REQUIRED``)."""

    attribute: str
    name: str
    rule: Rule
    default: Any


class _Plan(NamedTuple):
    """The fields of a class, and two functions that are compiled for it: a task crosses them eight times."""

    table: tuple[Field, ...]
    read: Callable[[Mapping[str, Any]], Any]
    write: Callable[[Any], Header]


_PLANS: dict[type, _Plan] = {}


def _plan(cls: Any) -> _Plan:
    rows = []
    for each in fields(cls):
        default = REQUIRED if each.default is MISSING else each.default
        rows.append(Field(each.name, each.metadata["name"] or each.name, each.metadata["rule"], default))
    known: dict[str, Any] = {"cls": cls, "REQUIRED": REQUIRED, "Missing": _Missing, "Misfit": _Misfit, "Wrong": Wrong}
    read, write = ["def read(header):", " get = header.get"], ["def write(self):", " out = {}"]
    for number, (attribute, name, rule, default) in enumerate(rows):
        v = f"v{number}"
        known |= {f"default{number}": default, f"rule{number}": rule.read, f"write{number}": rule.write}
        read += [f" {v} = get({name!r}, REQUIRED)", f" if {v} is REQUIRED:"]
        read += [f"  raise Missing({name!r})" if default is REQUIRED else f"  {v} = default{number}", " else:"]
        if rule.test:
            read += [f"  v = {v}", f"  if not ({rule.test}): raise Misfit({name!r})"]
        else:
            read += ["  try:", f"   {v} = rule{number}({v})", "  except Wrong:", f"   raise Misfit({name!r}) from None"]
        value = f"write{number}(v)" if rule.write is not None else "v"
        write += [f" v = self.{attribute}"]
        differs = "" if default is REQUIRED else f"if v is not default{number} and v != default{number}: "
        write += [f" {differs}out[{name!r}] = {value}"]
    read += [f" return cls({', '.join(f'v{number}' for number in range(len(rows)))})"]
    write += [" return out"]
    exec("\n".join([*read, *write]), known)  # noqa: S102 - from the class's own fields, as dataclasses does
    _PLANS[cls] = made = _Plan(tuple(rows), known["read"], known["write"])
    return made


class _Missing(LookupError):
    """A field is missing."""


class _Misfit(ValueError):
    """A field's value breaks its rule."""


class Fields:
    """Base of frames and of parts of frames: fields with rules."""

    __slots__ = ()
    kind: ClassVar[str] = ""

    @classmethod
    def table(cls) -> tuple[Field, ...]:
        """Return the fields, in the order in which they are written."""
        return (_PLANS.get(cls) or _plan(cls)).table

    @classmethod
    def read(cls: type[F], header: Mapping[str, Any]) -> F:
        """Read the fields of a header. Raises ``RemoteProtocolError`` for one that is missing or breaks its rule."""
        try:
            return (_PLANS.get(cls) or _plan(cls)).read(header)  # type: ignore[no-any-return]
        except _Misfit as error:
            (name,) = error.args
            rule = next(row.rule for row in cls.table() if row.name == name)
            raise RemoteProtocolError(f"a frame of kind {cls.kind!r} has a {name!r} that is not {rule.says}") from None
        except _Missing as error:
            raise RemoteProtocolError(f"a frame of kind {cls.kind!r} has no {error.args[0]!r}") from None

    def fields(self) -> Header:
        """Return the fields as JSON has them; those that have their default are left out."""
        return (_PLANS.get(type(self)) or _plan(type(self))).write(self)
