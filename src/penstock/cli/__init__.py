"""The command `penstock`, one file a subcommand. No logic: it calls the rooms below."""
