"""The composition root: the one place where rooms are put together, and the commands people type."""
