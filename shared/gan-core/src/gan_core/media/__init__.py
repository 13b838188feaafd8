"""What the media writers of all domains share: names of item files, and `labels.csv`."""
