"""From a folded float network to a quantized one: choices, places, ranges, roundings, and checkpoints of them. A
network, its partition and clips come in; a network with fake quantizers, or its integer codes on disk, goes out. What
learns, what exports and what a run is are not known here."""
