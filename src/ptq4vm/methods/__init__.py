"""What learns: block reconstruction and global calibration, as LightningModules, and the switches that make methods
of them. It sees networks, quantizers and tensors. It knows no data set, no folder and no evaluation."""
