"""What every callback promises."""

from __future__ import annotations

from dlframe.contracts.building import build, equal
from dlframe.contracts.selection import contract


@contract("callback")
def test_is_a_callback(entry):
    """It is one of Lightning's, and its state is taken over by another."""
    from dlframe.engine.fit import Callback  # imports Lightning

    callback, heir = build(entry), build(entry)
    assert isinstance(callback, Callback), f"it must be a lightning.pytorch.Callback. Received: {type(callback).__name__}"
    heir.load_state_dict(callback.state_dict())
    assert equal(heir.state_dict(), callback.state_dict()), "restored from its state_dict, it has another state"
