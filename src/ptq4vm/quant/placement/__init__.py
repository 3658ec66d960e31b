"""Where quantizers stand and with how many bits: at inputs, at outputs, or where an engine stores tensors. That is
decided before anything is changed, from the network's wiring; another placement is a file and its name in the registry.
No tensor is quantized here."""
