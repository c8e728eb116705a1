"""Job of a cell: the processes that train, export and verify it, one after the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from prunec.comparison.claims import Claim
from prunec.comparison.folder import Failure, is_busy, keep_failure, steps_left
from prunec.comparison.grid import Cell
from prunec.store.runs import RunFolder

COMMANDS = {"train": ("train", "--resume"), "export": ("export",), "verify": ("verify",)}
PROGRAM = (sys.executable, "-m", "prunec")


class Job:
    """Processes of one cell; each continues where the one before it ended, even in an earlier call.

    Attributes:
        cell: the cell.
        run: its run folder.
        share: index of its share of the machine.
        step: current step; ``wait`` while another process works on the run.
        began: time of the start, by the monotonic clock.
        claim: lock on the cell; None where no other machine can work on it.
        failure: the failure that ended it; None while there is none.
    """

    def __init__(
        self,
        cell: Cell,
        run: RunFolder,
        share: int,
        variables: Mapping[str, str],
        claim: Claim | None = None,
    ) -> None:
        self.cell, self.run, self.share, self.claim = cell, run, share, claim
        self.step = "wait"
        self.began = time.monotonic()
        self.failure: Failure | None = None
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._logged = 0

    @property
    def log(self) -> str:
        """Path of the log of the processes' output."""
        return str(self.run.path / "log.txt")

    def advance(self) -> bool:
        """Start the next step if one is due; return whether the cell ended, well or not."""
        if self.claim and not self.claim.take():
            return False
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return False
            self._process = None
            self.failure = self._verdict(code)
        if not self.failure and is_busy(self.run):
            return False
        left = steps_left(self.run)  # after checking the lock: its holder may have just finished
        if self.failure or not left:
            keep_failure(self.run, self.failure)
            self.release()
            return True
        self._start(left[0])
        return False

    def stop(self) -> None:
        """Ask the process to save and end; a wait for another process ends at once."""
        if self._process and os.name == "posix":  # elsewhere Ctrl-C reaches the process directly
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until the process has ended; release the cell."""
        if self._process:
            self._process.wait()
        self.release()

    def release(self) -> None:
        """Let others have the cell."""
        if self.claim:
            self.claim.release()

    @property
    def held_elsewhere(self) -> str:
        """Name of another holder of the cell; empty where there is none, or it has ended."""
        if self.step != "wait" or self._process:
            return ""
        theirs = self.claim is not None and not self.claim.is_own
        return (self.claim.holder if self.claim and theirs else "") or "another process"

    def _start(self, step: str) -> None:
        self.step = step
        command = [*PROGRAM, *COMMANDS[step], str(self.run.path)]
        with open(self.log, "ab") as log:
            now = datetime.now(UTC).isoformat(" ", "seconds")
            log.write(f"\n# {now}: {' '.join(command[2:])}\n".encode())
            log.flush()
            # The log holds earlier attempts, too; errors are read from here on.
            self._logged = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100", **self._variables},
                start_new_session=os.name == "posix",  # Ctrl-C then arrives only here, once
            )

    def _verdict(self, code: int) -> Failure | None:
        """Return the failure of a step by its exit code; also if it left no result; else None."""
        # Exit code 0 is not enough: the step must also have left its result.
        if code == 0 and self.step not in steps_left(self.run)[:1]:
            return None
        message, remedy = _error_in(self._said())
        if self.step != "train" and code == 2:
            message, remedy = _unproven(self.run, self.step) or message, remedy
        return Failure(self.step, code, message or _silent(code), remedy)

    def _said(self) -> str:
        with open(self.log, "rb") as log:
            log.seek(self._logged)
            return log.read().decode("utf-8", "replace")


def _error_in(text: str) -> tuple[str, str]:
    """Return the last error and its remedy in the output of a command; else its last line."""
    _, error, tail = text.rpartition("\nerror: ") if "\nerror: " in text else ("", "", "")
    if not error and text.startswith("error: "):
        tail = text.removeprefix("error: ")
    if not tail:
        lines = [line for line in text.splitlines() if line.strip()]
        return (lines[-1].strip() if lines else "", "")
    message, _, remedy = tail.partition("\nremedy: ")
    return message.strip(), remedy.strip()


def _unproven(run: RunFolder, step: str) -> str:
    """Return a sentence on the failed checks of a file; empty for none."""
    path = {"export": run.export.report, "verify": run.export.verified}[step]
    try:
        forms = json.loads(path.read_text("utf-8"))["forms"]
        checks = [check for form in forms.values() for check in form["checks"]]
        failed = [check["name"] for check in checks if not check["passed"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}" if failed else ""


def _silent(code: int) -> str:
    """Return the message for a process that ended without output."""
    if code == -9:  # SIGKILL, which Linux sends where memory runs out
        return "it was killed: not enough memory?"
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
