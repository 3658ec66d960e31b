"""An ONNX graph and the passes over it: plain functions that change it in place. They know operations, constants and
scales. They know no network and no file."""
