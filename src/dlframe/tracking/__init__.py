"""MLflow tracking: training writes a journal, another process uploads it.

    journal.jsonl  ->  python -m dlframe.tracking RUN  ->  MLflow

`Tracker` starts the upload process and waits for it; `upload` uploads the pending records of one run, `sync` those of
many; `reachable` checks a store. The run directory holds the upload state, so that a later process
continues where the last one stopped and uploads each record once.
"""

from dlframe.tracking.store import reachable
from dlframe.tracking.sync import sync
from dlframe.tracking.tracker import Tracker, upload
from dlframe.tracking.upload_state import UploadState, has_pending

__all__ = ["Tracker", "UploadState", "has_pending", "reachable", "sync", "upload"]
