"""An exported network as a page that mattes in the browser: its folder, ONNX Runtime Web, and a server for it."""
