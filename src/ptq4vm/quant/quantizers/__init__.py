"""What rounds: one algorithm a file, chosen by its name. ``base`` says what activation quantizers and weight roundings
must be able to do. They know their own tensors and the choices; no network, no method and no file is known here."""
