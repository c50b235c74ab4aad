"""What is looked at before and while a task trains: its model on the first samples, losses that are not finite."""
