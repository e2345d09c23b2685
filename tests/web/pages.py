"""A run folder with pairs to label, a real server of the page in its own process, and a rater that talks to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from fromnoise.evaluate.records import write_jsonl

ROOT = Path(__file__).parents[2]


def make_run(folder: Path, count: int = 30, texts: list[tuple[str, str, str]] | None = None) -> Path:
    """A run in which prefer has sampled pairs and waits for people: what the page needs, and nothing else."""
    texts = texts or [(f"Question {n}?", f"Answer one to {n}.", f"Answer two to {n}.") for n in range(count)]
    write_jsonl(folder / "prefer" / "unlabelled.jsonl", [record(n, *three) for n, three in enumerate(texts)])
    (folder / "recipe.toml").write_text('name = "labelled"\n[prefer]\nraters = "people"\n')
    return folder


def record(number: int, prompt: str, first: str, second: str) -> dict:
    answers = [{"text": text, "token_ids": [number, at], "stopped": True} for at, text in enumerate((first, second))]
    return {"id": f"pair-{number:06d}", "messages": [{"role": "user", "content": prompt}], "answers": answers}


class Server:
    """`fromnoise label` as a process of its own, on a port that it keeps when it is started again."""

    def __init__(self, run: Path, *options: str):
        self.run, self.options, self.port, self.output = run, options, 0, ""
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "fromnoise", "label", str(self.run), "--port", str(self.port), *self.options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.output = ""
        slow = threading.Timer(60, self.process.kill)  # ends the reading below
        slow.start()
        while "nothing is lost" not in self.output:
            line = self.process.stdout.readline()
            assert line, f"the server did not start:\n{self.output}"
            self.output += line
        slow.cancel()
        self.port = int(re.search(r"http://[^/]*:(\d+)/", self.output)[1])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def ask(self, method: str, path: str, body: dict | None = None, **headers: str) -> tuple[int, dict, dict]:
        """(status, JSON or {}, headers) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {**({} if body is None else {"Content-Type": "application/json"}), **named})
            response = connection.getresponse()
            raw = response.read()
            return response.status, json.loads(raw) if "json" in response.getheader("content-type", "") else {}, dict(response.getheaders())
        finally:
            connection.close()

    def post(self, path: str, body: dict, **headers: str) -> dict:
        status, answer, _ = self.ask("POST", path, body, **headers)
        assert status == 200, answer
        return answer

    def vote(self, rater: str, state: dict, choice: str, key: str, **more) -> dict:
        return self.post("/api/vote", {"rater": rater, "key": key, "showing": state["showing"]["id"], "choice": choice, **more})
