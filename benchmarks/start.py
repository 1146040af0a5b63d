"""Start of a training and of `codedance serve`, by process and by phase, of several checkouts side by side.

`python -m benchmarks.start {train,serve} CHECKOUT [CHECKOUT ...] --model FOLDER [--data FILE] [--repeats N]`. Checkouts
take turns. Each start is a session of its own, whose processes are looked at twice a second: when each kind is first
seen, and its CPU seconds (user + system) until the end of the first step, or the first answer. Compare these where the
machine has other work, which stretches wall time alone.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

_POLL_SECONDS = 0.5
_LIMIT_SECONDS = 1800.0
_END_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")
_KINDS = {
    r"ray::(\w+)": "{0}",
    r"VLLM::(\w+)": "{0}",
    r"fork_server": "fork server",
    r"fork_client": "fork client",
    r"codedance_verl\.(train|cli)": "driver",
    r"gcs_server|raylet|dashboard|log_monitor|runtime_env|default_worker|setup_worker": "Ray itself",
}


@dataclass
class Start:
    """One start, in seconds.

    Attributes:
        wall_s: to the end of the first step, or the first answer.
        phases: wall seconds to events, and to the first sight of each kind of process.
        cpu_s: by kind of process, until then.
    """

    wall_s: float
    phases: dict[str, float]
    cpu_s: dict[str, float]
    load: tuple[float, float, float] = field(default_factory=os.getloadavg)

    @property
    def total_cpu_s(self) -> float:
        return sum(self.cpu_s.values())


class Session:
    """The processes of a session, as they were last seen."""

    def __init__(self, leader: int) -> None:
        self._leader, self._begun = leader, time.monotonic()
        self._kind: dict[int, str] = {}
        self._cpu_s: dict[int, float] = {}
        self.seen: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Wall seconds since the start."""
        return round(time.monotonic() - self._begun, 1)

    def look(self) -> None:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) != self._leader:
                    continue
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, IndexError):
                continue
            pid, kind = int(path.name), kind_of(command)
            self._kind[pid] = kind  # the last one counts, as Ray names a worker by what it runs
            self._cpu_s[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
            self.seen.setdefault(kind, self.seconds)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds by kind, most first; processes that have ended count as last seen."""
        sums: dict[str, float] = defaultdict(float)
        for pid, used in self._cpu_s.items():
            sums[self._kind[pid]] += used
        return {kind: round(used, 2) for kind, used in sorted(sums.items(), key=lambda item: -item[1])}


def kind_of(command: str) -> str:
    """Returns the kind of process that a command line, or the title that stands in its place, is of."""
    for pattern, name in _KINDS.items():
        if found := re.search(pattern, command):
            return name.format(*found.groups())
    return "other"


def start_training(tree: Path, model: str, data: Path) -> Start:
    """Trains for one step, with 8 questions and 4 rollouts each."""
    with tempfile.TemporaryDirectory(prefix="start-bench-") as folder:
        run_dir = Path(folder, "run")
        command = ["codedance_verl.train", "recipe=cpu_demo", f"run_dir={run_dir}", "trainer.total_training_steps=1"]
        command += [f"data.train_files={data}", f"data.val_files={data}", f"actor_rollout_ref.model.path={model}"]
        command += ["data.train_batch_size=8", "actor_rollout_ref.rollout.n=4", "trainer.save_freq=-1"]

        def poll(_: Session) -> dict[str, float] | None:
            lines = [line for file in run_dir.glob("metrics/*.jsonl") for line in file.read_text().splitlines()]
            steps = [json.loads(line) for line in lines]
            return next(({"step": step["data"]["timing_s/step"]} for step in steps if step["step"] == 1), None)

        return _measure(tree, command, poll, Path(folder, "log"))


def start_serving(tree: Path, model: str) -> Start:
    """Serves until a question about a grey image has been answered."""
    with tempfile.TemporaryDirectory(prefix="start-bench-") as folder:
        log = Path(folder, "log")

        def poll(session: Session) -> dict[str, float] | None:
            found = re.search(r"serving .* at (http://\S+?),", log.read_text())
            if found is None:
                return None
            listening = session.seconds
            _ask(found[1])
            return {"listening": listening}

        return _measure(tree, ["codedance_verl.cli", "serve", "--model", model, "serving.port=0"], poll, log)


def _ask(url: str) -> None:
    image = io.BytesIO()
    Image.new("RGB", (112, 112), "grey").save(image, "png")
    encoded = f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": encoded}}, {"type": "text", "text": "Which colour is it?"}]
    address = f"{url.rstrip('/').removesuffix('/v1')}/v1"
    name = json.loads(urllib.request.urlopen(f"{address}/models", timeout=_LIMIT_SECONDS).read())["data"][0]["id"]
    body = json.dumps({"model": name, "max_tokens": 64, "messages": [{"role": "user", "content": parts}]}).encode()
    request = urllib.request.Request(f"{address}/chat/completions", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=_LIMIT_SECONDS).read()


def _measure(
    tree: Path, command: Sequence[str], poll: Callable[[Session], dict[str, float] | None], log: Path
) -> Start:
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    session = Session(process.pid)
    try:
        while (events := poll(session)) is None:
            if process.poll() is not None or session.seconds > _LIMIT_SECONDS:
                raise RuntimeError(f"{tree}: no end of the start after {session.seconds} s\n{log.read_text()[-3000:]}")
            session.look()
            time.sleep(_POLL_SECONDS)
        session.look()
        return Start(session.seconds, {**events, **session.seen}, session.cpu_s())
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.send_signal(signal.SIGINT)
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def summary(starts: Sequence[Start]) -> dict[str, Any]:
    """Medians over the starts of a checkout, beside the starts themselves."""
    cpu_s = round(median(start.total_cpu_s for start in starts), 1)
    return {
        "wall_s": median(start.wall_s for start in starts),
        "cpu_s": cpu_s,
        "starts": [asdict(start) for start in starts],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "serve"))
    parser.add_argument("checkouts", type=Path, nargs="+", help="the first one is the base of the ratios")
    parser.add_argument("--model", required=True, help="folder of the model, such as outputs/demo/sft/model")
    parser.add_argument("--data", type=Path, help="training questions, such as outputs/demo/data/rl_train.parquet")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/start.json"))
    options = parser.parse_args(arguments)
    if options.what == "train" and options.data is None:
        parser.error("--data: train needs a file of questions")
    starts: dict[str, list[Start]] = {str(tree.resolve()): [] for tree in options.checkouts}
    for _ in range(options.repeats):
        for tree, found in starts.items():
            path = Path(tree)
            training = options.what == "train"
            found.append(
                start_training(path, options.model, options.data) if training else start_serving(path, options.model)
            )
            print(f"{tree}: {found[-1].wall_s} s, {found[-1].total_cpu_s:.1f} CPU s {found[-1].cpu_s}", flush=True)
    results = {tree: summary(found) for tree, found in starts.items()}
    base = next(iter(results.values()))
    for tree, result in results.items():
        ratios = (result[name] / base[name] for name in ("wall_s", "cpu_s"))
        print(f"{tree}: {result['wall_s']:.1f} s ({next(ratios):.2f}x), {result['cpu_s']} CPU s ({next(ratios):.2f}x)")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"what": options.what, "checkouts": results}, indent=1))


if __name__ == "__main__":
    main()
