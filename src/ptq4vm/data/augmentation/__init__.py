"""What is done to samples to have more of them: choices, draws and effects on tensors. An effect enters with its
choices, its draw from a seed and what it does to tensors. No file is read here, and nothing is random that a seed does
not decide."""
