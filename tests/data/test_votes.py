"""The file of votes: who may read it."""

from __future__ import annotations

import os

import pytest

from fromnoise.data.votes import FILE, VoteStore
from fromnoise.run.errors import UserError


@pytest.mark.parametrize("is_there", [False, True])
def test_the_votes_and_their_secret_are_their_owners_alone_from_the_start(tmp_path, is_there):
    """SQLite gives the files beside it the mode it finds: they held the secret, readable by all, until the first closing."""
    before = os.umask(0o022)
    try:
        if is_there:
            (tmp_path / FILE).touch()
        store = VoteStore(tmp_path / FILE)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes == {FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600}


def test_a_place_where_no_file_can_be_is_said(tmp_path):
    (tmp_path / FILE).mkdir()
    for path in (tmp_path / FILE, tmp_path / "nowhere" / FILE):
        with pytest.raises(UserError, match="cannot be used as the file of votes"):
            VoteStore(path)
