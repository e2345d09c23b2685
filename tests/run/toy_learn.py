"""The second toy stage, as a module of its own, which is how the pipeline names stages."""

from tests.run.toy import run_learn as run  # noqa: F401
