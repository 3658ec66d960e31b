"""The target ``openvino``: what OpenVINO wants of a graph, and the two files. Everything that is true of OpenVINO alone
stands here. Other targets may not import it."""
