"""What a run shows for itself: tables, files of metrics, pictures."""
