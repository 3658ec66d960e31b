"""Where quantizers stand and with how many bits: at inputs, at outputs, or where an engine stores tensors. Decided
before anything is changed, from the network's wiring. No tensor is quantized here."""
