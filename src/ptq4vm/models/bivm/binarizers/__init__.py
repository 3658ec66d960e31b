"""Ways to make weights and activations binary, one a file: BNN, DoReFa, ReActNet, ReCU, and none at all."""
