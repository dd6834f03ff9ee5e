"""What a task may ask for, as people write it: names and versions, and nothing that leads elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.errors import RemoteProtocolError, UsageError
from p2p_ipython.protocol.packages import MAX_PACKAGES, is_requirement, name_of, packages_words
from p2p_ipython.protocol.task_frames import Task, read_client
from p2p_ipython.task.distributions import distribution_of
from p2p_ipython.task.requirements import metadata, python_for, requirement, requirements, split


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("numpy", "numpy"),
        (" NumPy >= 2 , <3 ", "numpy<3,>=2"),
        ("Foo_Bar.baz[B, a]~=1.0rc1", "foo-bar-baz[a,b]~=1.0rc1"),
        ("torch==2.5.0+CPU", "torch==2.5.0+cpu"),
        ("six!=1.*", "six!=1.*"),
        ("a1", "a1"),
    ],
)
def test_a_requirement_has_one_form(text: str, canonical: str) -> None:
    assert requirement(text) == canonical
    assert is_requirement(canonical)
    assert requirement(canonical) == canonical


NONE = [
    "",
    "-e .",
    "-r requirements.txt",
    "--index-url https://example.org",
    "tiny @ https://example.org/tiny.whl",
    "tiny@file:///etc",
    "https://example.org/tiny.whl",
    "git+https://example.org/tiny",
    "./tiny",
    "../tiny",
    "tiny/../../x",
    "C:\\tiny",
    "tiny --hash=sha256:00",
    "tiny\n--index-url=x",
    "tiny\r-e .",
    "tiny\x00",
    "tiny==1.0; python_version > '3'",
    "tiny===anything",
    "tiny==1.0#egg",
    "${HOME}",
    "$(id)",
    "tiny[../x]",
    "t\u0456ny",  # a letter that looks like one
    "x" * 101,
    "tiny" + ",".join(f">={number}" for number in range(60)),
]


@pytest.mark.parametrize("text", NONE)
def test_all_that_is_more_than_a_name_and_versions_is_refused_here_and_on_the_wire(text: str) -> None:
    with pytest.raises(UsageError):
        requirement(text)
    header = {"t": "task", "id": "t", "attempt": 1, "kind": "cell", "segments": [[0, None]], "packages": [text]}
    with pytest.raises(RemoteProtocolError, match="requirements"):
        read_client(header)


@given(st.text(max_size=40) | st.from_regex(r"[a-z][a-z0-9-]{0,9}[\[\]=<>~!.,;@ a-z0-9+*/-]{0,20}", fullmatch=True))
def test_what_the_wire_lets_through_can_be_no_option_path_or_line(text: str) -> None:
    if is_requirement(text):
        assert not set(text) & set("/\\@;:#$%{}()'\"`| \t\r\n\0")
        assert text[0].isalnum()
        assert name_of(text)


def test_a_task_asks_for_a_bounded_number() -> None:
    with pytest.raises(UsageError, match="33 packages are asked for, and a task may ask for 32"):
        requirements(f"p{number}" for number in range(MAX_PACKAGES + 1))
    task = Task("t", 1, "cell", ((0, None),), packages=tuple(f"p{number}" for number in range(MAX_PACKAGES + 1)))
    with pytest.raises(RemoteProtocolError):
        read_client(task.header())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("numpy>=2,<3, pandas", ["numpy>=2,<3", "pandas"]),
        ("pandas[excel,parquet]>=2,polars,", ["pandas[excel,parquet]>=2", "polars"]),
        ("six", ["six"]),
        (" , ", []),
    ],
)
def test_commas_separate_requirements_and_not_what_is_in_one(text: str, parts: list[str]) -> None:
    assert split(text) == parts


def test_a_scripts_metadata_says_what_it_needs() -> None:
    lines = ["requires-python = '>=3.12'", "dependencies = [", "  'six>=1',", "]", "[tool.other]", "x = 1", "///"]
    source = "#!/usr/bin/env python\n# /// script\n#\n" + "".join(f"# {line}\n" for line in lines) + "print()\n"
    assert metadata(source) == (metadata(source.replace("\n", "\n")))
    assert metadata(source).packages == ("six>=1",)
    assert metadata(source).python == ">=3.12"
    assert metadata("print('# /// script')") == metadata("")


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("dependencies = ['six']\n# [tool.uv]\n# sources = {}", r"\[tool.uv\]"),
        ("dependencies = ['six']\n# [tool.uv.sources]\n# six = {path='x'}", r"\[tool.uv\]"),
        ("dependencies = ['six @ https://example.org/six.whl']", "names a place"),
        ("dependencies = 'six'", "no list"),
        ("dependencies = [1]", "no list"),
        ("dependencies = [", "no TOML"),
        ("requires-python = 3", "no text"),
    ],
)
def test_metadata_that_can_not_be_heeded_is_refused(block: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        metadata(f"# /// script\n# {block}\n# ///\n")
    with pytest.raises(UsageError, match="two blocks"):
        metadata("# /// script\n# x = 1\n# ///\n\n# /// script\n# y = 1\n# ///\n")


@pytest.mark.parametrize(
    ("wanted", "here", "version"),
    [
        ("3.12", "3.11", "3.12"),
        (">=3.11", "3.13", "3.13"),
        (">=3.12", "3.11", "3.12"),
        (">=3.11.4,<3.12", "3.13", "3.11"),
    ],
)
def test_a_python_is_this_one_if_that_will_do(wanted: str, here: str, version: str) -> None:
    assert python_for(wanted, here) == version


@pytest.mark.parametrize("wanted", ["<3", "python3", ">=4"])
def test_a_python_that_nobody_can_have_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError):
        python_for(wanted, "3.11")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("cv2", "opencv-python-headless"),
        ("sklearn.linear_model", "scikit-learn"),
        ("PIL", "pillow"),
        ("yaml", "pyyaml"),
        ("polars", "polars"),
        ("my_module", "my-module"),
        ("json", ""),
        ("_thing", ""),
        ("a b", ""),
        ("", ""),
    ],
)
def test_a_module_is_had_by_its_packages_name(module: str, name: str) -> None:
    assert distribution_of(module) == name


def test_many_requirements_are_said_in_few_words() -> None:
    assert packages_words(("numpy>=2", "pandas")) == "numpy>=2, pandas"
    many = packages_words([f"package-{number}" for number in range(32)])
    assert len(many) <= 150
    assert many.endswith(" more")
