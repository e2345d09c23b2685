"""`fromnoise` in a process that kills itself (SIGKILL) at a chosen point, given in the environment as KILL_AT.

    after:VERB:SECONDS    so long after the stage began or went on, or when it is about to finish, whichever comes first
    step:VERB:N           when the stage logs its N-th line of metrics in all, those before a resume counted
    generate:VERB:N:T     inside the N-th call of the sampling engine, after T tokens have been drawn
    save:VERB:N           inside the N-th checkpoint, its tensors written and its state not yet

A process that ends by itself leaves the names of the modules it has imported in the file MODULES_TO, where that is set.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from pathlib import Path

from fromnoise.run.machine import prepare_environment


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kind: str, verb: str, *numbers: str) -> None:
    from fromnoise.run import checkpoint, context, metrics

    state = {"verb": None, "calls": 0, "lines": 0}
    begin = context.StageContext.__init__

    def begun(self, stage, *arguments, **options):
        state["verb"] = stage.verb
        begin(self, stage, *arguments, **options)
        state["lines"] = len(metrics.read_metrics(self.folder / "metrics.jsonl"))
        if kind == "after" and stage.verb == verb:
            timer = threading.Timer(float(numbers[0]), die)
            timer.daemon = True
            timer.start()

    finish = context.StageContext.finish

    def finished(self, *arguments, **options):
        if kind == "after" and self.stage.verb == verb:
            die()
        finish(self, *arguments, **options)

    context.StageContext.__init__, context.StageContext.finish = begun, finished
    if kind == "step":
        write = metrics.MetricsLog.write

        def written(self, *arguments):
            write(self, *arguments)
            state["lines"] += 1
            if self.stage == verb and state["lines"] >= int(numbers[0]):
                die()

        metrics.MetricsLog.write = written
    if kind == "save":
        sync = checkpoint.fsync_file

        def synced(path):
            sync(path)
            state["calls"] += state["verb"] == verb
            if state["verb"] == verb and state["calls"] == int(numbers[0]):
                die()

        checkpoint.fsync_file = synced
    if kind == "generate":
        from fromnoise.generate import engine

        generate, draw = engine.Engine.generate, engine.Engine._draw

        def generated(self, *arguments, **options):
            state["calls"] += state["verb"] == verb
            state["drawn"] = 0
            return generate(self, *arguments, **options)

        def drawn(*arguments):
            draw(*arguments)
            state["drawn"] = state.get("drawn", 0) + 1
            if state["verb"] == verb and state["calls"] == int(numbers[0]) and state["drawn"] == int(numbers[1]):
                die()

        engine.Engine.generate, engine.Engine._draw = generated, drawn


if __name__ == "__main__":
    prepare_environment()
    if os.environ.get("KILL_AT"):
        arm(*os.environ["KILL_AT"].split(":"))
    if os.environ.get("MODULES_TO"):
        atexit.register(lambda: Path(os.environ["MODULES_TO"]).write_text("\n".join(sorted(sys.modules))))
    from fromnoise.cli import main

    main(sys.argv[1:])
