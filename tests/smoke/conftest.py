"""One run of the smoke recipe, for every test that needs something really trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.smoke.test_kills import carry_out


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smoke") / "whole"
    code, output = carry_out(folder, ["smoke"])
    assert code == 0, output
    return folder
