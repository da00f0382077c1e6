"""Looking at runs and files of rows in a browser: a local, read-only server of pages."""
