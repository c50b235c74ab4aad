"""Options of entries that were renamed: every row of the table holds, and an old name is answered with the new one."""

from __future__ import annotations

import pytest

from dlframe.registry import GROUPS, plugins
from dlframe.registry.renamed import RENAMED
from dlframe.types import ConfigError

plugins.discover()
ROWS = [(owner, old, new) for owner, names in RENAMED.items() if "." in owner for old, new in names.items()]


@pytest.mark.parametrize(("owner", "old", "new"), ROWS, ids=lambda text: text)
def test_an_old_name_is_answered_with_the_new_one(owner, old, new):
    group, name = owner.split(".")
    entry = GROUPS[group].get(name)
    assert new in entry.parameters
    with pytest.raises(ConfigError) as error:
        entry.check({old: 1})
    assert str(error.value) == f"{group}.{old}: is called '{new}' now."
