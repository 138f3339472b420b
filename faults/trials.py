"""Trials in processes of their own: a crash or a hang of one is its result and touches no other.

Children are forked from this process, which has imported torch and never computes with it: they start in milliseconds,
and no thread of torch is lost in the fork.
"""

import gc
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import psutil
from tqdm import tqdm


# Trials that run side by side.
JOBS = os.cpu_count() or 1
SURVIVED, LOST, WRONG_MESSAGE, SKIPPED = "survived", "lost", "wrong message", "skipped"


class Verdict(NamedTuple):
    """What became of one trial: one of the four words above, and in what way."""

    kind: str
    detail: str = ""


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
        how: "returned", "raised", "died" of a signal or an exit of its own, or "hung" and was killed.
        value: What it returned; the error that it raised, as (types from the most special on, message, traceback);
            the signal or exit code it died of.
        shown: All that it wrote on standard output and standard error.
    """

    how: str
    value: Any
    shown: str


@dataclass
class Tally:
    """Counts of one class of fault; `run` says by which command, when and from which commit they were made."""

    fault: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    wrong_message: int = 0
    seconds: float = 0.0
    note: str = ""
    run: str = ""
    failures: list[str] = field(default_factory=list)

    def count(self, name: str, verdict: Verdict) -> None:
        """Add one trial; of failures the first twenty are kept in words."""
        if verdict.kind == SKIPPED:
            self.note = verdict.detail
            return
        self.tried += 1
        self.survived += verdict.kind == SURVIVED
        self.lost += verdict.kind == LOST
        self.wrong_message += verdict.kind == WRONG_MESSAGE
        if verdict.kind != SURVIVED and len(self.failures) < 20:
            self.failures.append(f"{name}: {verdict.kind}: {verdict.detail}")


Trial = Callable[[Path], Verdict]


class Child:
    """A forked process that calls a function; its result comes through a pipe, its output goes to a file."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by wait)
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            self._run(call, writer)
        os.close(writer)
        self.reader = reader
        self.started = time.monotonic()

    def _run(self, call: Callable[[], Any], writer: int) -> NoReturn:
        for descriptor in (1, 2):
            os.dup2(self.output.fileno(), descriptor)
        try:
            result: tuple[str, Any] = ("returned", call())
        except SystemExit as stop:
            result = ("returned", stop.code)
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            result = ("raised", (names, str(error), traceback.format_exc()))
        with os.fdopen(writer, "w", encoding="utf-8", errors="replace") as pipe:
            json.dump(result, pipe)
        os._exit(0)

    def kill(self) -> None:
        """SIGKILL to it and to all that it started."""
        process = psutil.Process(self.pid)  # a zombie until it is waited for, so the number is still its own
        for started in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                started.kill()

    def wait(self, seconds: float) -> Ended:
        """Wait for its end, and for no longer than this."""
        left = max(0.0, self.started + seconds - time.monotonic())
        hung = not wait([self.reader], left)
        received = ""
        if not hung:
            with os.fdopen(self.reader, encoding="utf-8") as pipe:
                received = pipe.read()
        if not received:
            self.kill()
        _, status = os.waitpid(self.pid, 0)
        self.output.seek(0)
        shown = self.output.read().decode(errors="replace")
        self.output.close()
        if hung:
            os.close(self.reader)
            return Ended("hung", seconds, shown)
        if received:
            how, value = json.loads(received)
            return Ended(how, value, shown)
        return Ended("died", os.waitstatus_to_exitcode(status), shown)


def in_child(call: Callable[[], Any], seconds: float = 120.0) -> Ended:
    """Call a function in a child of its own."""
    return Child(call).wait(seconds)


def explained(ended: Ended, *names: str) -> Verdict:
    """Whether an error is a sentence for the user: of a kind that commands print in a line, with one of the names."""
    if ended.how == "returned":
        return Verdict(SURVIVED)
    if ended.how != "raised":
        return Verdict(WRONG_MESSAGE, f"{ended.how} ({ended.value}) {ended.shown[-300:]}")
    kinds, message, trace = ended.value
    return judge(kinds, message, trace, *names)


def judge(kinds: Sequence[str], message: str, trace: str, *names: str) -> Verdict:
    """The same of an error that is at hand."""
    if not {"ValueError", "OSError"} & set(kinds) or "UnicodeError" in kinds:
        return Verdict(WRONG_MESSAGE, f"{kinds[0]}: {message[:200]} | {' '.join(trace.split())[-300:]}")
    if not any(name in message for name in names):
        return Verdict(WRONG_MESSAGE, f"names none of {', '.join(names)}: {kinds[0]}: {message[:300]}")
    if len(message) > 1500:
        return Verdict(WRONG_MESSAGE, f"a message of {len(message)} characters: {message[:200]} ...")
    return Verdict(SURVIVED)


def read_or_refused(read: Callable[[], Any], *names: str) -> Verdict:
    """Survived if `read` gives something or refuses in a sentence with one of the names."""
    try:
        read()
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return judge(kinds, str(error), traceback.format_exc(), *names)
    return Verdict(SURVIVED)


def refused(ended: Ended, *names: str) -> Verdict:
    """Whether a command line ended with code 2 and one error line that holds one of the names."""
    if ended.how != "returned":
        return explained(ended, *names)
    errors = [line for line in ended.shown.splitlines() if line.startswith("error")]
    if ended.value != 2 or len(errors) != 1 or "Traceback" in ended.shown:
        return Verdict(WRONG_MESSAGE, f"exit code {ended.value}, {len(errors)} errors: {ended.shown[-500:]}")
    if not any(name in errors[0] for name in names):
        return Verdict(WRONG_MESSAGE, f"names none of {', '.join(names)}: {errors[0][:300]}")
    return Verdict(SURVIVED)


def run_trials(fault: str, trials: Iterable[tuple[str, Trial]], total: int, seconds: float = 120.0) -> Tally:
    """Run each trial in a child with a scratch folder of its own, several at a time, and count the verdicts."""
    tally, started = Tally(fault), time.monotonic()
    gc.freeze()  # else the collector of every child would copy all memory of this process
    with tqdm(total=total, desc=fault, unit="trial") as progress:
        for name, verdict in _verdicts(trials, seconds, JOBS):
            tally.count(name, verdict)
            if verdict.kind in (LOST, WRONG_MESSAGE):
                progress.write(f"{fault}: {name}: {verdict.kind}: {verdict.detail}", file=sys.stderr)
            bad = tally.lost + tally.wrong_message
            progress.set_postfix(bad=bad, refresh=False) if bad else None
            progress.update()
    tally.seconds = round(time.monotonic() - started, 1)
    return tally


def _verdicts(trials: Iterable[tuple[str, Trial]], seconds: float, jobs: int) -> Iterator[tuple[str, Verdict]]:
    """Verdicts in the order in which the trials end."""
    waiting = iter(trials)
    running: dict[Any, tuple[str, Child, Path]] = {}
    while True:
        while len(running) < jobs and (following := next(waiting, None)) is not None:
            name, trial = following
            scratch = Path(tempfile.mkdtemp(prefix="faults-"))
            child = Child(_bound(trial, scratch))
            running[child.reader] = (name, child, scratch)
        if not running:
            return
        oldest = min(child.started for _, child, _ in running.values())
        ready = wait(list(running), max(0.0, oldest + seconds - time.monotonic()))
        late = [r for r, (_, child, _) in running.items() if time.monotonic() - child.started >= seconds]
        for reader in {*ready, *late}:
            name, child, scratch = running.pop(reader)
            ended = child.wait(0.0 if reader in late and reader not in ready else seconds)
            shutil.rmtree(scratch, ignore_errors=True)
            yield name, _verdict_of(ended)


def _bound(trial: Trial, scratch: Path) -> Callable[[], Verdict]:
    return lambda: trial(scratch)


def _verdict_of(ended: Ended) -> Verdict:
    """The verdict that a trial returned, or what its end says."""
    if ended.how == "returned" and isinstance(ended.value, list):
        return Verdict(*ended.value)
    if ended.how == "raised":
        return Verdict(WRONG_MESSAGE, " ".join(ended.value[2].split())[-500:])
    return Verdict(WRONG_MESSAGE, f"{ended.how} ({ended.value}) {ended.shown[-300:]}")
