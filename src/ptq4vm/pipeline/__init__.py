"""The whole run: observe, reconstruct, calibrate, evaluate, go on after an interruption. It puts methods, data and
evaluation in order, and leaves what it made in a run folder. It computes nothing itself."""
