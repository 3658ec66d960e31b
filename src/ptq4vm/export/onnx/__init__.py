"""The target ``onnx``: what ONNX Runtime wants of a graph, and the file. Everything that is true of ONNX Runtime alone
stands here. Other targets may not import it."""
