"""What every entry of every registry promises, as tests that the author of a plugin can run.

`python -m dlframe.contracts` runs them on the plugins of ./plugins and on the installed ones, `python -m dlframe.contracts
PATH` on one that lies elsewhere. An entry is tested by being registered, on data that it or its plugin brings. The name of a
contract is that of its test: an entry to which one does not apply says why, `exempt={"overfits": "..."}`.
"""
