"""Everything that knows MLflow. The training process never imports it: it writes the journal, a writer delivers.

    journal.jsonl  ->  python -m dlframe.tracking RUN_FOLDER  ->  MLflow

`Tracker` starts the writer process and waits for it, `deliver` sends what a run still owes and `sync` what many do,
`reachable` asks whether the store can be used at all, and `ui` serves it. How far delivery has come is kept in the run
folder, so that any later writer goes on where the last one stopped, and nothing arrives twice.
"""

from dlframe.tracking.position import Position
from dlframe.tracking.store import reachable, ui
from dlframe.tracking.sync import sync
from dlframe.tracking.tracker import Tracker, deliver

__all__ = ["Position", "Tracker", "deliver", "reachable", "sync", "ui"]
