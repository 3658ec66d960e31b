"""An ONNX graph and the passes over it: plain functions that change it in place. What more than one engine wants of a
graph may enter, in terms of operations, constants and scales. No network and no file is known here."""
