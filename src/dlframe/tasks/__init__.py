"""What is learnt: one file per kind of task; base.py is the contract."""
