"""Writing of samples: names of item files, `labels.csv`, pictures, plots, and their layout."""
