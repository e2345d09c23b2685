"""How the suite is shared out over processes: `make test` starts one for each core (pytest-xdist), and a file goes to one of them."""

from __future__ import annotations

import pytest

FIRST = ("tests/smoke/", "tests/run/", "tests/laws/", "tests/model/")  # what takes longest begins first, or one process ends alone


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, folder in enumerate(FIRST) if item.nodeid.startswith(folder)), len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            """What all that need the one trained run stay together by, so that it is made once; else the file. (Groups by mark
            (`--dist loadgroup`) do nothing with pytest 9.2 and pytest-xdist 3.8.)"""
            return "smoke" if nodeid.startswith("tests/smoke/") else nodeid.split("::")[0]

    return ByFile(config, log)
