"""What of a run MLflow keeps: files, the model, its data, a description, measurements of the machine."""
