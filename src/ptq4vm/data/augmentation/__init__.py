"""What is done to samples to have more of them: choices, draws and effects on tensors. Every draw has its seed. No
file is read here."""
