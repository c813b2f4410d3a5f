"""Every call of a journal's life fails in turn: calls of the storage, and calls of the system below it."""
