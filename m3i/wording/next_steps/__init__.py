"""What would settle the open questions of a run or a sweep, with the commands to do it."""
