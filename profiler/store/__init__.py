"""The results store: what a run's files hold (schema), how they are written (writer) and how they are read (store)."""
