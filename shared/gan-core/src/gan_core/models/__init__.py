"""Reading and writing of weights: checkpoints, model folders, published checkpoints, export."""
