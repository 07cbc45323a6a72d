"""What would settle an open question, with commands: of one run, and of a sweep."""
