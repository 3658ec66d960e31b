"""One interface to run a matting network frame by frame, and the engines behind it."""
