"""The `posjournal` command: a journal in the hands of people. One file a command."""
