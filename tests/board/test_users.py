"""Names by public keys."""

from __future__ import annotations

import pytest
from board_support import make_key

from p2p_ipython.board.server.users import MAX_FILE, Users, parse_line
from p2p_ipython.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("alice", "NAME KIND KEY"),
        ("al-ice {line}", "letters and digits"),
        ("x" * 51 + " {line}", "letters and digits"),
        ("Public {line}", "not public"),
        ("alice ssh-ed25519 !!!!", "not base64"),
        ("alice ssh-rsa {base64}", "not of the kind ssh-rsa"),
        ("alice ssh-ed25519 AAAA", "not of the kind"),
    ],
)
def test_a_line_that_names_no_user_is_refused_with_the_reason(tmp_path, line, says):
    key = make_key(tmp_path)
    with pytest.raises(ValueError, match=says):
        parse_line(line.format(line=key.line, base64=key.line.split()[1]))


def test_names_are_lower_cased_and_a_user_may_have_several_keys(tmp_path):
    keys = [make_key(tmp_path, name) for name in ("one", "two", "three")]
    path = tmp_path / "users"
    path.write_text("".join(f"Alice {key.line} comment with blanks\n" for key in keys[:2]))
    users = Users(path)
    assert [users.name_of(key.key.public_data) for key in keys] == ["alice", "alice", "public"]


def test_a_key_belongs_to_the_first_who_has_it(tmp_path, caplog):
    key = make_key(tmp_path)
    path = tmp_path / "users"
    path.write_text(f"alice {key.line}\neve {key.line}\n")
    assert Users(path).name_of(key.key.public_data) == "alice"
    assert "line 2 is skipped: the key is already alice's" in caplog.text


def test_a_file_that_is_not_there_or_too_large_is_refused_at_the_start(tmp_path):
    with pytest.raises(ConfigError, match="can't be read"):
        Users(tmp_path / "gone")
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigError, match="larger"):
        Users(large)


def test_inline_users_are_checked(tmp_path):
    key = make_key(tmp_path)
    assert Users(inline={"Alice": key.line}).name_of(key.key.public_data) == "alice"
    with pytest.raises(ConfigError, match="user 'alice'"):
        Users(inline={"alice": "no key"})
