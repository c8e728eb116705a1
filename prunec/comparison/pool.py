"""Pool of jobs: runs the unfinished cells, some at a time, until all end or a signal arrives."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from prunec.comparison.claims import Claim
from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.grid import Cell
from prunec.comparison.job import Job
from prunec.comparison.machine_shares import Share
from prunec.comparison.watch import Watch
from prunec.processes import ALONE
from prunec.training.interruption import Interruption, listening

PAUSE = 0.2  # seconds between two polls of the processes: short beside their start of seconds


def work_off(
    cells: Sequence[Cell],
    folder: ComparisonFolder,
    shares: Sequence[Share],
    watch: Watch,
    ended: Callable[[Job], None],
) -> None:
    """Run cells to their end; one that fails does not stop the others.

    Args:
        cells: unfinished cells, in the order in which they start.
        folder: folder of the comparison.
        shares: shares of the machine, one per concurrent cell.
        watch: display of progress.
        ended: callback for every job that ended.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; the processes have saved their state and ended.
    """
    with listening(ALONE) as interruption:
        _Pool(cells, folder, shares, watch, ended, interruption).run()


class _Pool:
    def __init__(
        self,
        cells: Sequence[Cell],
        folder: ComparisonFolder,
        shares: Sequence[Share],
        watch: Watch,
        ended: Callable[[Job], None],
        interruption: Interruption,
    ) -> None:
        self.left = deque(cells)
        self.folder, self.shares, self.watch, self.ended = folder, shares, watch, ended
        self.interruption = interruption
        # Reversed, because pop takes the last: GPU 0 is used first.
        self.free = list(reversed(range(len(shares))))
        self.jobs: list[Job] = []
        self.reported: set[str] = set()

    def run(self) -> None:
        try:
            while self.left or self.jobs:
                self._begin()
                for job in list(self.jobs):
                    if job.advance():
                        self._end(job)
                    else:
                        self._report_others(job)
                self.watch.look(self.jobs)
                if self.interruption.asked:
                    raise self.interruption.error("with cells left")
                time.sleep(PAUSE)
        except BaseException:
            self._stop()
            raise

    def _begin(self) -> None:
        while self.left and self.free:
            cell, share = self.left.popleft(), self.free.pop()
            job = self._job(cell, share)
            self.jobs.append(job)
            self.watch.began(job)

    def _job(self, cell: Cell, share: int) -> Job:
        claim = Claim(self.folder.path, cell.name)
        with claim.making():
            run = self.folder.run_of(cell)
        return Job(cell, run, share, self.shares[share], claim)

    def _end(self, job: Job) -> None:
        self.jobs.remove(job)
        self.free.append(job.share)
        self.watch.ended(job)
        self.ended(job)

    def _report_others(self, job: Job) -> None:
        """Print once the holder of a cell that must be waited for."""
        if job.held_elsewhere and job.cell.name not in self.reported:
            self.reported.add(job.cell.name)
            self.watch.waits(job)

    def _stop(self) -> None:
        """Ask every process to save and end, and wait until they have."""
        self.watch.say(f"Stopping: {len(self.jobs)} running, each saves its state.")
        for job in self.jobs:
            job.stop()
        for job in self.jobs:
            job.wait()
