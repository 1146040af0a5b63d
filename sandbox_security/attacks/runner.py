"""Runs attacks in sessions of their own, beside a neighbour with a secret, and judges each.

An attack is contained when its last cell ended as expected, when no secret and no admission of success was printed, its
check found nothing, its own session is what it should be, the neighbour still works with its variables intact, and,
once the session is closed, none of its processes lives and its file space is free again.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import os
import resource
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession
from codedance_verl.types import Execution, ExecutionStatus
from sandbox_security.attacks.attack import BREACH, Attack, Evidence, Fate, cell

AT_ONCE = 4
SLACK_SECONDS = 10.0
RECOVERY_SECONDS = 20.0
LEFTOVER_SECONDS = 6.0
SECRET_PREFIX = "codedance-secret-"
SECRET_VARIABLE = "CODEDANCE_SELFCHECK_SECRET"

_HELPERS = (Path(__file__).parent / "in_cell.py").read_text(encoding="utf-8")
_PREPARE = cell("""
    import os
    secret = {secret!r}
    open('secret.txt', 'w').write(secret)
    shared_file = f'/scratch/shared-{{os.getpid()}}.txt' if {container} else os.path.abspath('shared.txt')
    open(shared_file, 'w').write(secret)
    print(dict(pid=os.getpid(), uid=os.getuid(), folder=os.getcwd(), shared_file=shared_file))
""")
_STILL_THERE = cell("""
    import json, numpy
    from PIL import Image
    assert open('secret.txt').read() == open(shared_file).read() == secret
    assert numpy.zeros(1)[0] == 0 and len('abc') == 3 and json.dumps([1]) == '[1]'
    Image.new('RGB', (4, 4)).show()
    print('here', secret)
""")
_PROCESSES_OF = cell("""
    import os
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            status = open(f'/proc/{{pid}}/status').read()
        except OSError:
            continue
        if '\\nUid:\\t{uid}\\t' in status and '\\nState:\\tZ' not in status:
            found.append(int(pid))
    print(found)
""")
_FREE_SPACE = "import os; print([(os.statvfs(top).f_bfree, os.statvfs(top).f_ffree) for top in ('/tmp', '/dev/shm')])"


@dataclass(frozen=True)
class Outcome:
    """Outcome of one attack. `problem` is empty when it was contained; `skipped` says why it was not run."""

    attack: Attack
    problem: str = ""
    seconds: float = 0.0
    skipped: str = ""

    @property
    def contained(self) -> bool:
        return not self.problem and not self.skipped


@dataclass(frozen=True)
class HostSecrets:
    """Secrets of the host: the value of an environment variable, and of a file that everyone may read."""

    token: str
    file: Path


@contextlib.contextmanager
def host_secrets() -> Iterator[HostSecrets]:
    """Plants secrets on the host. To be entered before the node is started, whose containers might inherit them."""
    token = SECRET_PREFIX + secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="codedance-secret-") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "secret.txt"
        file.write_text(token, encoding="ascii")
        file.chmod(0o644)
        os.environ[SECRET_VARIABLE] = token
        try:
            yield HostSecrets(token, file)
        finally:
            del os.environ[SECRET_VARIABLE]


class Neighbour:
    """A session that no attack may harm. `session` changes only where an attack may cost it its life."""

    def __init__(self, pool: SandboxPool, in_container: bool) -> None:
        self._pool = pool
        self._in_container = in_container
        self._lock = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self.secret = ""
        self.facts: dict[str, object] = {}
        self.session: SandboxSession

    async def open_session(self) -> None:
        """Opens a new session, with a secret in a variable and in files."""
        async with self._lock:
            await self._open()

    async def _open(self) -> None:
        await self.leave()
        self.secret = SECRET_PREFIX + secrets.token_hex(8)
        self.session = await self._stack.enter_async_context(self._pool.session())
        answer = await self.session.run(_PREPARE.format(secret=self.secret, container=self._in_container))
        if not answer.succeeded:
            raise SandboxError(f"the neighbour does not come up: {answer}")
        self.facts = ast.literal_eval(answer.stdout)

    async def stand_still(self) -> None:
        """Learns the process it is: that is another one after each of its cells."""
        self.facts["pid"] = int(await self.ask("import os; print(os.getpid())"))

    async def leave(self) -> None:
        await self._stack.aclose()

    async def problem(self) -> str:
        """Checks it; returns the problem, nothing when it answers with its variables, files and libraries intact."""
        async with self._lock:
            try:
                answer = await self.session.run(_STILL_THERE, timeout_s=RECOVERY_SECONDS)
            except SandboxError as error:
                return f"the neighbour cannot be reached: {error}"
        if answer.stdout == f"here {self.secret}\n" and len(answer.images) == 1:
            return ""
        return f"the neighbour was harmed: {_summary(answer)}"

    async def ask(self, code: str) -> str:
        async with self._lock:
            return (await self.session.run(code, timeout_s=RECOVERY_SECONDS)).stdout.strip()


class AttackRunner:
    """Runs attacks on one node, whose sessions must all be in one interpreter. Use it as a context manager."""

    def __init__(self, node: SandboxNode, in_container: bool, own_uids: bool, hidden: HostSecrets) -> None:
        self._pool = SandboxPool([node])
        self._grace_s = node.config.kill_grace_s
        self._in_container = in_container
        self._own_uids = own_uids
        self._hidden = hidden
        self._neighbour = Neighbour(self._pool, in_container)
        self._replacing = asyncio.Lock()

    async def __aenter__(self) -> AttackRunner:
        await self._neighbour.open_session()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._neighbour.leave()

    async def run_all(
        self, attacks: Sequence[Attack], progress: Callable[[Outcome], None] = lambda _: None
    ) -> list[Outcome]:
        """Runs them, first those that may run beside others; the outcomes come in the order of `attacks`."""
        places = asyncio.Semaphore(AT_ONCE)

        async def run(attack: Attack) -> Outcome:
            async with places:
                outcome = await self.run(attack)
            progress(outcome)
            return outcome

        # attacks on shared limits would make others fail for want of memory or processes: they come last, one by one
        outcomes = await asyncio.gather(*(run(attack) for attack in attacks if not attack.alone))
        outcomes += [await run(attack) for attack in attacks if attack.alone]
        by_attack = {id(outcome.attack): outcome for outcome in outcomes}
        return [by_attack[id(attack)] for attack in attacks]

    async def run(self, attack: Attack) -> Outcome:
        """Runs one attack and judges it; never raises for what the attack does."""
        started = time.monotonic()
        try:
            problem = await self._problem(attack)
        except SandboxError as error:
            problem = f"a call that is the host's to serve failed: {error}"
        return Outcome(attack, problem, time.monotonic() - started)

    async def _problem(self, attack: Attack) -> str:
        # beside others it would be theirs that is missing
        space = await self._free_space() if attack.alone else ""
        if attack.alone:
            await self._neighbour.stand_still()
        async with self._pool.session(*([_image()] if attack.with_image else [])) as session:
            answer = await session.run(self._briefing())
            uid = answer.stdout.strip()
            if not uid.isdigit():
                return f"the attack could not be prepared: {_summary(answer)}"
            evidence = await self._carry_out(attack, session)
            problem = self._judge(attack, evidence) or await self._aftermath(attack, evidence, session)
        harm = await self._harm(attack)
        return problem or harm or await self._leftovers(uid) or await self._lost_space(space)

    def _briefing(self) -> str:
        host = {"secret_file": str(self._hidden.file)}
        facts = f"NEIGHBOUR = {self._neighbour.facts!r}\nHOST = {host!r}\nkept = 'kept'\nprint(os.getuid())"
        return f"{_HELPERS}\n{facts}"

    async def _carry_out(self, attack: Attack, session: SandboxSession) -> Evidence:
        executions = []
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number, code in enumerate(attack.cells):
            if number:
                await asyncio.sleep(attack.pause_s)
            started = time.monotonic()
            executions.append(await session.run(code, timeout_s=attack.timeout_s))
        # ru_maxrss is the peak of this process, in KiB on Linux: it only grows
        growth_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb) / 1024
        return Evidence(tuple(executions), time.monotonic() - started, growth_mb)

    def _judge(self, attack: Attack, evidence: Evidence) -> str:
        last = evidence.last
        for secret in (self._neighbour.secret, self._hidden.token):
            # first, and whatever else happened: an attack may fail and have its secret all the same
            if any(secret in text for execution in evidence.executions for text in _texts(execution)):
                return "a secret came out"
        if not evidence.executions[0].succeeded and len(evidence.executions) > 1:
            return f"it could not be prepared: {_summary(evidence.executions[0])}"
        if BREACH in evidence.printed:
            return next(line for line in evidence.printed.splitlines() if BREACH in line)[:200]
        if last.status not in attack.statuses:
            return f"it ended otherwise than expected: {_summary(last)}"
        if last.status is ExecutionStatus.ERROR and attack.refusals:
            kind = last.error.kind if last.error else ""
            if kind not in attack.refusals:
                return f"it failed for another reason than a refusal: {_summary(last)}"
        if evidence.seconds > attack.timeout_s + self._grace_s + SLACK_SECONDS:
            return f"it took {evidence.seconds:.1f} s with {attack.timeout_s:g} s allowed"
        return attack.check(evidence)

    async def _aftermath(self, attack: Attack, evidence: Evidence, session: SandboxSession) -> str:
        """The next call of the attacker's session is answered, and, unless it is spoiled, honestly."""
        started = time.monotonic()
        after = await session.run("print(globals().get('kept'), 2 + 2)", timeout_s=2.0)
        seconds = time.monotonic() - started
        if seconds > 2.0 + self._grace_s + SLACK_SECONDS:
            return f"the next call took {seconds:.1f} s"
        if attack.fate is Fate.SPOILED:
            return ""
        # a session that was killed or stopped may have lost its variables, but must not show forged ones
        lost_state = evidence.last.status in (ExecutionStatus.KILLED, ExecutionStatus.TIMEOUT)
        expected = {"kept 4\n", "None 4\n"} if lost_state else {"kept 4\n"}
        if after.stdout in expected or (attack.shared_fate and after.status is ExecutionStatus.KILLED):
            return ""
        return f"the next call of the session is not clean: {_summary(after)}"

    async def _harm(self, attack: Attack) -> str:
        """Harm done to the neighbour; one that is lost is replaced by another, for the attacks to come."""
        problem = await self._neighbour.problem()
        if problem and not await self._replaced_neighbour():
            return f"{problem}; and no other session came up"
        return "" if attack.shared_fate else problem

    async def _replaced_neighbour(self) -> bool:
        deadline = time.monotonic() + RECOVERY_SECONDS
        async with self._replacing:
            while await self._neighbour.problem() and time.monotonic() < deadline:
                with contextlib.suppress(SandboxError):
                    await self._neighbour.open_session()
            return not await self._neighbour.problem()

    async def _leftovers(self, uid: str) -> str:
        if not self._own_uids:
            return ""
        # processes die after the session is closed; a zombie is only waiting to be reaped
        found = await _until(lambda: self._neighbour.ask(_PROCESSES_OF.format(uid=uid)), lambda answer: answer == "[]")
        return "" if found == "[]" else f"processes outlived their session: {found}"

    async def _free_space(self) -> str:
        return await self._neighbour.ask(_FREE_SPACE) if self._in_container else ""

    async def _lost_space(self, before: str) -> str:
        if not before:
            return ""
        now = await _until(self._free_space, lambda answer: _at_least(answer, before))
        return "" if _at_least(now, before) else f"file space is not free again: {before} before, {now} after"


def _image() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(encoded, "PNG")
    return encoded.getvalue()


async def _until(ask: Callable[[], Awaitable[str]], good: Callable[[str], bool]) -> str:
    """The answer once it is good, or the last one when it does not become so in time."""
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while not good(answer := await ask()) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return answer


def _at_least(free: str, before: str) -> bool:
    """Compares free blocks and files with those before: true where none has become fewer."""
    # (blocks, files) of each file system
    pairs = zip(ast.literal_eval(free), ast.literal_eval(before), strict=True)
    return all(now >= then for after, earlier in pairs for now, then in zip(after, earlier, strict=True))


def _texts(execution: Execution) -> Iterator[str]:
    yield execution.stdout
    if execution.error is not None:
        yield from (execution.error.kind, execution.error.message, execution.error.traceback)


def _summary(execution: Execution) -> str:
    error = f", {execution.error.kind}: {execution.error.message}" if execution.error else ""
    return f"{execution.status}{error}, stdout {execution.stdout[-120:]!r}"[:400]
