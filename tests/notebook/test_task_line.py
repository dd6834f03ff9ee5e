"""Options of tasks in the lines of magics: what they mean, their defaults, and what is completed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import TraitError
from traitlets.config import Config

from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.errors import ConfigError
from p2p_ipython.errors import UsageError as OurUsageError
from p2p_ipython.notebook.lines import parsed_line
from p2p_ipython.notebook.magics import P2PMagics, load, unload
from p2p_ipython.notebook.task_line import options_in


@pytest.fixture
def ip() -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    load(shell)
    yield shell
    unload(shell)
    InteractiveShell.clear_instance()


@pytest.fixture
def magics(ip: InteractiveShell) -> P2PMagics:
    found: P2PMagics = ip.magics_manager.registry["P2PMagics"]
    return found


class Flaky(Exception):
    """An error of a notebook's own."""


def read(magics: P2PMagics, line: str) -> tuple[str | None, TaskOptions]:
    parsed = parsed_line(magics.p2p, line)
    namespace = {"Flaky": Flaky, "here": type("module", (), {"Flaky": Flaky}), "x": 3}
    return parsed.name, options_in(parsed, magics.default_options(namespace), namespace)


OPTIONS = [
    ("--label tiles", TaskOptions(label="tiles")),
    ("--label 'two words'", TaskOptions(label="two words")),
    ("--retries 2", TaskOptions(retries=2)),
    ("--retry-on OSError,KeyError", TaskOptions(retry_on=("builtins.OSError", "builtins.KeyError"))),
    ("--retry-on Flaky --retry-on OSError", TaskOptions(retry_on=(f"{__name__}.Flaky", "builtins.OSError"))),
    ("--retry-on here.Flaky", TaskOptions(retry_on=(f"{__name__}.Flaky",))),
    ("--once", TaskOptions(once=True, retries=0)),
    ("--priority 7", TaskOptions(priority=7)),
    ("--priority -7", TaskOptions(priority=-7)),
    ("--on bob", TaskOptions(on=("bob",))),
    ("--on bob,carol --on 'dora (desk)'", TaskOptions(on=("bob", "carol", "dora (desk)"))),
    ("--tags gpu", TaskOptions(tags=("gpu",))),
    ("--tags gpu,big --tags home", TaskOptions(tags=("gpu", "big", "home"))),
    ("--memory 2G", TaskOptions(memory=2 << 30)),
    ("--gpus 1", TaskOptions(gpus=1)),
    ("--seed 7", TaskOptions(seed=7)),
    ("--seed 0", TaskOptions(seed=0)),
    ("--lazy", TaskOptions(lazy=True)),
]  # fmt: skip


@pytest.mark.parametrize(("line", "options"), OPTIONS)
@pytest.mark.parametrize("order", ["{} tile", "tile {}"])
def test_an_option_takes_its_own_value_and_not_the_futures_name(
    magics: P2PMagics, line: str, options: TaskOptions, order: str
) -> None:
    assert read(magics, order.format(line)) == ("tile", options)


def test_every_option_of_cells_is_one_of_calls_and_has_help(magics: P2PMagics) -> None:
    actions = {action.dest: action for action in magics.p2p.parser._actions}  # type: ignore[attr-defined]
    for name in ("label", "retries", "retry_on", "once", "priority", "on", "tags", "memory", "gpus", "seed", "lazy"):
        assert hasattr(USUAL, name)
        assert actions[name].help


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--retrys 2", r"did you mean --retries\?"),
        ("--tag gpu tile", None),  # argparse takes a beginning of an option for it
        ("--priorty 3", r"did you mean --priority\?"),
        ("--retries many", "invalid int"),
    ],
)
def test_a_misspelt_option_is_named_with_what_it_is_like(magics: P2PMagics, line: str, words: str | None) -> None:
    if words is None:
        assert read(magics, line) == ("tile", TaskOptions(tags=("gpu",)))
    else:
        with pytest.raises(UsageError, match=words):
            read(magics, line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--retries 2000", "whole number"),
        ("--retry-on x", "retry_on"),
        ("--retry-on OSEror", "Did you mean OSError"),
        ("--tags GPU", "small letters"),
        ("--on ','", "names nothing"),
        ("--memory plenty", "512M"),
        ("--once --retries 2", "contradict"),
    ],
)
def test_a_value_that_cant_be_is_refused(magics: P2PMagics, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(magics, line)


def test_a_cell_that_waits_is_not_lazy(magics: P2PMagics) -> None:
    with pytest.raises(OurUsageError, match="contradict"):
        read(magics, "--lazy --wait")


# --- defaults ---


def test_defaults_hold_unless_the_line_says_something_else(ip: InteractiveShell, magics: P2PMagics) -> None:
    for line in (
        "retries = 2",
        "tags = 'gpu,home'",
        "memory = '1G'",
        "priority = -1",
        "retry_on = 'Flaky'",
        "on = 'bob'",
    ):
        ip.run_line_magic("config", f"P2PMagics.{line}")
    defaults = TaskOptions(
        retries=2, tags=("gpu", "home"), memory=1 << 30, priority=-1, retry_on=(f"{__name__}.Flaky",), on=("bob",)
    )
    assert read(magics, "tile") == ("tile", defaults)
    assert read(magics, "--tags big --priority 0 --once")[1] == defaults.changed(
        {"tags": "big", "priority": 0, "once": True, "retries": 0}
    )
    ip.run_line_magic("config", "P2PMagics.once = True")
    assert read(magics, "tile")[1].attempts_after_errors(5) == 0
    assert read(magics, "--retries 3")[1].retries == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("retries", -1), ("retries", "two"), ("tags", "GPU"), ("memory", "x"), ("gpus", 99), ("priority", 1.5)],
)
def test_a_default_that_cant_be_is_refused(magics: P2PMagics, name: str, value: Any) -> None:
    with pytest.raises(TraitError):
        setattr(magics, name, value)


# --- completion ---


def completed(ip: InteractiveShell, line: str) -> set[str]:
    with provisionalcompleter():
        return {c.text for c in ip.Completer.completions(line, len(line))}


def test_options_and_their_values_are_completed(ip: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def places(self) -> tuple[str, ...]:
            return ("bob", "bill", "carol")

        def tags(self) -> tuple[str, ...]:
            return ("gpu", "home")

    class Cluster:
        _core = Core()

    monkeypatch.setattr(P2PMagics, "cluster", Cluster())
    assert completed(ip, "%%p2p --re") >= {"--retries", "--retry-on"}
    assert completed(ip, "%%p2p tile --on b") == {"bob", "bill"}
    assert completed(ip, "%%p2p --on bob,c") == {"carol"}
    assert completed(ip, "%%p2p --tags ") >= {"gpu", "home"}
    assert completed(ip, "%%p2p --retry-on Connection") >= {"ConnectionError", "ConnectionResetError"}
    assert not completed(ip, "%%p2p --on bob car") & {"carol"}
    monkeypatch.undo()


def test_without_a_cluster_nobody_is_completed(ip: InteractiveShell) -> None:
    assert not completed(ip, "%%p2p --on b") & {"bob"}
