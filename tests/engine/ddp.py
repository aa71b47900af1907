"""What each process of a team does in the tests of training together; ``torch.distributed.run`` starts it.

``ddp.py DATA RUN NOTES [STEP]``: a whole run on toys. Each process notes the gradients of every step, the items that it
judged and the files that it opened to write. At ``STEP`` the last process is asked to stop.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.toys import Toy, Warming, recipe
from eosin.core.progress import Silent
from eosin.core.values import Clock
from eosin.data.dataset import Dataset
from eosin.data.module import LabelledView
from eosin.engine import checkpoint
from eosin.engine.device import open_team
from eosin.engine.interrupt import Interrupted
from eosin.engine.lab import EngineLab
from eosin.engine.workplace import Workplace
from eosin.parts.cams import Averaged
from eosin.parts.pseudo import TagGatedArgmax

# 12 items: batches of 7 and 5, which two processes share as 4 + 3 and 3 + 2
RECIPE = recipe(batch=7, epochs=3, augment={"stain": 0.2})


def main(data: Path, run: Path, notes: Path, stop: int) -> None:
    checkpoint.EVERY_S, checkpoint.COST = 0.0, 1e9
    rank, judged, written = int(os.environ.get("RANK", "0")), [], []
    learners: list[Warming] = []

    def opened(event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(given[1], str) and bool(set(given[1]) & set("wax+"))
        if writes or event in ("os.mkdir", "os.rename"):
            written.append(str(given[0]))

    look, init, after = LabelledView.__getitem__, Warming.__init__, Warming.after_step
    LabelledView.__getitem__ = lambda self, at: (judged.append(self.places[at]), look(self, at))[1]  # type: ignore
    Warming.__init__ = lambda self: (init(self), learners.append(self))[0]  # type: ignore

    def struck(self: Warming, clock: Clock) -> None:
        after(self, clock)
        if clock.step == stop and rank:
            os.kill(os.getpid(), signal.SIGTERM)

    Warming.after_step = struck  # type: ignore
    with open_team() as team:
        place = Workplace(run, Dataset.open(data), RECIPE, "tags", Silent(), team=team)
        sys.addaudithook(opened)
        lab = EngineLab(place)
        try:
            first = lab.fit("a", partial(Warming))
        except Interrupted as error:
            sys.exit(error.exit_code)
        seen = sorted(judged)
        masks = lab.label("drawn", first, partial(TagGatedArgmax, maker=partial(Averaged)))
        second = lab.fit("b", partial(Toy, mask="drawn"), masks={"drawn": masks})
        lab.score(second, "test")
        lab.export("export", second)
    inside = [path for path in written if str(run) in path]
    (notes / f"{rank}.json").write_text(json.dumps({"world": team.world, "judged": seen, "written": inside}))
    torch.save(learners[0].gradients, notes / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else -1)
