"""Names in an ONNX graph: layers by their paths, and short ones for what lies between them."""

from __future__ import annotations

from typing import Any

from ptq4vm.exporting.graph.editor import Editor


def name_layers(editor: Editor, suffix: str, prefix: str) -> None:
    """Name layers by their paths.

    A weight whose codes are called ``<prefix><path><suffix>`` comes from a node ``<path>/weight`` afterwards, and the
    node that uses it, and the layer's result, are called ``<path>``. Where the bias is added by a node of its own, as
    it is behind the matrix product of a linear layer, the result is that node's.
    """
    users: dict[str, list[Any]] = {}
    for node in editor.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    renamed = {tensor.name: tensor.name.removeprefix(prefix) for tensor in editor.graph.initializer}
    for node in editor.nodes("DequantizeLinear"):
        if not node.input[0].endswith(suffix):
            continue
        path = node.input[0].removesuffix(suffix).removeprefix(prefix)
        node.name = f"{path}/weight"
        (user,) = users[node.output[0]]
        while user.op_type == "Transpose":  # of a linear layer
            (user,) = users[user.output[0]]
        user.name = path
        adds = users.get(user.output[0], []) if user.op_type == "MatMul" else []
        biased = [node.op_type for node in adds] == ["Add"] and f"{prefix}{path}.bias" in adds[0].input
        renamed[(adds[0] if biased else user).output[0]] = path
    editor.rename_tensors(renamed)


def layer_of(node: Any) -> str:
    """Path of the layer whose weight a DequantizeLinear gives, which :func:`name_layers` wrote into its name."""
    return str(node.name).removesuffix("/weight")


def shorten_names(editor: Editor, prefix: str) -> None:
    """Number the tensors whose names begin with ``prefix`` and leave it out of the names of nodes.

    Names of intermediate tensors are a twentieth of a 4-bit network's file.
    """
    tensors = dict.fromkeys(name for node in editor.graph.node for name in [*node.output, *node.input])
    editor.rename_tensors({name: str(number) for number, name in enumerate(n for n in tensors if n.startswith(prefix))})
    for node in editor.graph.node:
        node.name = node.name.removeprefix(prefix)
