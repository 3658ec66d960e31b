"""What is done with a network: reconstruct, calibrate, evaluate, and the pipeline of it all."""
